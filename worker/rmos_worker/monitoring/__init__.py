"""What a worker tells whoever watches it: whether it takes jobs, and its metrics."""
