"""Explainers: they say in words why a run was judged as it was."""
