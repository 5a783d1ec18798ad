"""Batches of re-explanations: which runs they mean, how far they are, and their reports."""
