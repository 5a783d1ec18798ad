"""The job ledger: the truth about every job, and what reads and repairs it."""
