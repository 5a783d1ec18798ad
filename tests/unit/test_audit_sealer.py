"""The sealer: what it adds to the log, and what it refuses to continue."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_shared.auditlog.note import Signer, Verifier, verified
from rmos_shared.auditlog.proof import InclusionProof, check, prove
from rmos_shared.store.memory import MemoryStore
from support.audit_log import ORIGIN, START, assert_sound, keys_of, receipts, sealer_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def signer() -> Signer:
    return Signer(ORIGIN, Ed25519PrivateKey.generate())


def test_what_was_sealed_is_in_the_log_once_and_in_order(store: MemoryStore, signer: Signer) -> None:
    sealer = sealer_of(store, signer)
    now, number, keys = START, 0, list[str]()
    for count in (1, 0, 254, 255, 256, 1, 700, 2):
        new = receipts(range(number, number + count), now)
        sealed = sealer.seal(new, now=now, feed_at_end=True)
        assert (sealed is None) is (count == 0)
        if sealed is not None:
            verified(sealed.note, [Verifier.parse(signer.vkey)])
        keys += [receipt.key for receipt in new]
        number, now = number + count, now + timedelta(minutes=1)
    assert keys_of(sealer.log) == keys
    assert_sound(sealer.log)


def test_a_proof_from_the_log_holds_without_it(store: MemoryStore, signer: Signer) -> None:
    sealer = sealer_of(store, signer)
    sealer.seal(receipts(range(1_000)), now=START, feed_at_end=True)
    proof = InclusionProof.parse(prove(sealer.log, 700).to_bytes())
    shown = check(proof, b"file 700", [signer.verifier])
    assert shown.checkpoint.size == 1_001
