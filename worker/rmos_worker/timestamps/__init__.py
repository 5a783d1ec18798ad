"""Time stamps of checkpoints, by an authority that knows nothing of us (RFC 3161)."""
