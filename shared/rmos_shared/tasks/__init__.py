"""The tasks: their names, queues and payloads."""
