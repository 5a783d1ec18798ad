"""The job ledger: the truth about every job, in Redis; messages are only doorbells."""
