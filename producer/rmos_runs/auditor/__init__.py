"""The verifier of the audit log: one file that a stranger can take away, read and run."""
