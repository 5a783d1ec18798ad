"""Everything that puts work in or asks about it."""
