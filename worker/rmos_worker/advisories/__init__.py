"""The way to the advisory store: what a task asks of it, and the HTTP client that does it."""
