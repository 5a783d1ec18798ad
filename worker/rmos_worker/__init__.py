"""Everything that does the work."""
