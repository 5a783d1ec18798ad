"""Advisories: what an explanation is, as the store holds it and the link names it."""
