"""The audit log: an append-only Merkle tree over every published file, as plain files under ``_log/``.

Hashing after RFC 6962, tiles, checkpoints and proofs after the C2SP specifications ``tlog-tiles``,
``tlog-checkpoint``, ``signed-note``, ``tlog-cosignature`` and ``tlog-proof``. ``docs/reference/audit-log.md``
tells a stranger the format.
"""
