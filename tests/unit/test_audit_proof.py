"""Proofs of single records, to be verified without the store."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_shared.auditlog.entry import RecordEntry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import KeyKind, Note, Signer
from rmos_shared.auditlog.proof import InclusionProof, ProofInvalid, check, prove
from rmos_shared.store.memory import MemoryStore
from support.audit_log import ORIGIN, START, receipts, sealer_of

SIGNER = Signer(ORIGIN, Ed25519PrivateKey.generate())
WITNESS = Signer("witness.example/w", Ed25519PrivateKey.generate(), KeyKind.COSIGNATURE)
STRANGER = Signer("stranger", Ed25519PrivateKey.generate())
SIZE = 701
ROOT = base64.b64encode(bytes(32)).decode()


@pytest.fixture(scope="module")
def log() -> AuditLog:
    sealer = sealer_of(MemoryStore(), SIGNER)
    sealer.seal(receipts(range(300)), now=START, feed_at_end=True)
    sealer.seal(receipts(range(300, SIZE - 2)), now=START, feed_at_end=True)
    return sealer.log


@pytest.fixture
def proof(log: AuditLog) -> InclusionProof:
    return prove(log, 123)


def test_a_proof_has_the_form_of_the_specification(proof: InclusionProof) -> None:
    lines = proof.to_bytes().decode().split("\n")
    assert lines[:3] == [
        "c2sp.org/tlog-proof@v1",
        f"extra {base64.b64encode(proof.entry).decode()}",
        "index 123",
    ]
    assert lines[3 : 3 + len(proof.hashes)] == [base64.b64encode(each).decode() for each in proof.hashes]
    assert lines[3 + len(proof.hashes)] == ""
    assert "\n".join(lines[4 + len(proof.hashes) :]).encode() == proof.note.to_bytes()


@given(st.integers(0, SIZE - 1))
@settings(max_examples=40)
def test_every_entry_is_proven_without_the_store(log: AuditLog, index: int) -> None:
    proof = InclusionProof.parse(prove(log, index).to_bytes())
    proven = check(proof, None, [SIGNER.verifier])
    assert proven.entry.to_line() == proof.entry == next(log.entries(index))
    assert (proven.checkpoint.size, [each.vkey for each in proven.signatures]) == (SIZE, [SIGNER.vkey])
    if isinstance(proven.entry, RecordEntry):
        number = int(proven.entry.key.removesuffix(".json").rpartition("_")[2])
        check(proof, f"file {number}".encode(), [SIGNER.verifier])
        with pytest.raises(ProofInvalid, match="not the one that the entry tells of"):
            check(proof, f"file {number}!".encode(), [SIGNER.verifier])
    else:
        with pytest.raises(ProofInvalid, match="not the one that the entry tells of"):
            check(proof, b"", [SIGNER.verifier])


def test_a_proof_in_an_earlier_tree_holds_too(log: AuditLog) -> None:
    assert check(prove(log, 123, 301), b"file 123", [SIGNER.verifier]).checkpoint.size == 301


def test_a_witness_alone_does_not_make_a_proof(proof: InclusionProof) -> None:
    note = proof.note.signed(WITNESS.sign(proof.note.text, START))
    both = check(replace(proof, note=note), b"file 123", [SIGNER.verifier, WITNESS.verifier])
    assert [each.at for each in both.signatures] == [None, START]
    alone = replace(proof, note=Note(note.text, note.signatures[1:]))
    with pytest.raises(ProofInvalid, match="log's own key"):
        check(alone, b"file 123", [SIGNER.verifier, WITNESS.verifier])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda proof: replace(proof, index=122), "is not at 122"),
        (lambda proof: replace(proof, index=SIZE), "is not at"),
        (lambda proof: replace(proof, hashes=proof.hashes[:-1]), "is not at"),
        (lambda proof: replace(proof, hashes=(*proof.hashes, bytes(32))), "is not at"),
        (lambda proof: replace(proof, entry=proof.entry.replace(b"run_", b"ran_")), "is not at"),
        (lambda proof: replace(proof, entry=proof.entry.replace(b",", b", ", 1)), "not canonical"),
        (lambda proof: replace(proof, note=Note(proof.note.text)), "no signature"),
        (lambda proof: replace(proof, note=Note("x\n").signed(SIGNER.sign("x\n"))), "three lines"),
        (
            lambda proof: replace(proof, note=Note(proof.note.text).signed(STRANGER.sign(proof.note.text))),
            "no signature is of a key",
        ),
        (
            lambda proof: replace(
                proof, note=Note(proof.note.text.replace("701", "702"), proof.note.signatures)
            ),
            "does not hold",
        ),
    ],
)
def test_a_proof_that_was_changed_shows_nothing(proof: InclusionProof, change, reason: str) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    with pytest.raises(ProofInvalid, match=reason):
        check(change(proof), None, [SIGNER.verifier])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"tlog-proof@v1", b"tlog-proof@v2", "does not begin"),
        (b"extra ", b"extro ", "second line"),
        (b"index 123", b"index 0123", "third line"),
        (b"index 123", b"index -1", "third line"),
        (b"index 123", b"123", "third line"),
        (b"index 123\n", b"index 123\nAAAA\n", "no hash"),
        (b"index 123\n", b"index 123\n!!!!\n", "base64"),
        (b"index 123\n", b"index 123\n" + (base64.b64encode(bytes(32)) + b"\n") * 64, "too many"),
        (b"index 123\n", b"index 123\n\n", "checkpoint of the proof"),
        (b"index", "índex".encode(), "not text"),
    ],
)
def test_what_is_no_proof_is_refused(proof: InclusionProof, old: bytes, new: bytes, reason: str) -> None:
    data = proof.to_bytes()
    assert data.count(old) == 1
    with pytest.raises(ProofInvalid, match=reason):
        InclusionProof.parse(data.replace(old, new))


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"c2sp.org/tlog-proof@v1", b"c2sp.org/tlog-proof@v1\n\nx\n\n"]
)
def test_what_is_cut_off_is_no_proof(data: bytes) -> None:
    with pytest.raises(ProofInvalid):
        InclusionProof.parse(data)


@given(st.binary(max_size=300), st.integers(0, 300))
@settings(max_examples=200)
def test_no_bytes_break_the_reader(log: AuditLog, noise: bytes, at: int) -> None:
    data = prove(log, 5).to_bytes()
    spoiled = data[:at] + noise + data[at:]
    try:
        proof = InclusionProof.parse(spoiled)
    except ProofInvalid:
        return
    assert proof.to_bytes() == spoiled
