"""What every side of rmos-runs must agree on: models, hashing, ids, errors, settings, ledger, store.

Imports nothing else of ours (design section 2); a test holds that rule.
"""
