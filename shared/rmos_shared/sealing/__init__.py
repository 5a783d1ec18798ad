"""Sealing: the feed of the ledger, and what lies in the store, brought into the audit log."""
