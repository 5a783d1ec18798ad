"""What every side of rmos-runs must agree on: models, hashing, ids, errors, settings, ledger, store.

Imports nothing else of ours (docs/architecture.md); a test holds that rule.
"""
