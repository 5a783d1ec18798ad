"""Traces: spans of this process, for whoever collects them."""
