"""The verifier's own tree, notes and keys: held against the writer's, which it shares nothing with."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rmos_runs.auditor import verifier
from rmos_shared.auditlog import merkle
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import SealEntry, SealFacts, record_line
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.seal_file import SealFile
from support.audit_log import tiles_of

ENTRIES = st.lists(st.binary(max_size=40), min_size=1, max_size=700)


@given(ENTRIES, st.data())
def test_the_tree_is_the_writers_at_every_size(entries: list[bytes], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(entries)), max_size=5)) | {len(entries)})
    edge, start = verifier.Edge(), 0
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    files: set[str] = set()
    for cut in cuts:
        edge = edge.grown(entries[start:cut])
        start = cut
        assert edge.size == cut
        assert edge.root() == merkle.root(leaves[:cut])
        now = {key for key, _ in edge.partial()}
        files |= {key for key, _ in edge.full}
        edge.full.clear()
        assert {tile.path for tile in tiles_of(cut)} == now | files


@given(ENTRIES, st.data())
def test_a_path_of_the_writer_proves_its_leaf_and_no_other(entries: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.inclusion_proof(merkle.nodes_of(leaves), index, len(leaves))
    root = merkle.root(leaves)
    assert verifier.leaf_hash(entries[index]) == leaves[index]
    assert verifier.proves(leaves[index], index, len(leaves), path, root)
    other = hashlib.sha256(leaves[index]).digest()
    assert not verifier.proves(other, index, len(leaves), path, root)
    assert not verifier.proves(leaves[index], index, len(leaves), [*path, other], root)
    assert not verifier.proves(leaves[index], index + len(leaves), len(leaves), path, root)
    if path:
        assert not verifier.proves(leaves[index], index, len(leaves), path[:-1], root)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_holds_what_was_put_in(lines: list[bytes]) -> None:
    assert verifier.unbundled(verifier.bundle(lines)) == lines


@given(st.integers(1, 10**12 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_of_the_writer_is_read(size: int, root: bytes) -> None:
    text = Checkpoint("rmos-runs/x", size, root).text
    note = verifier.checkpoint(text.encode() + b"\n")
    assert note is not None
    assert (note.origin, note.size, note.root, note.signatures) == ("rmos-runs/x", size, root, ())


NOW = datetime(2026, 11, 29, tzinfo=UTC)
SIGNER = Signer("rmos-runs/x", Ed25519PrivateKey.from_private_bytes(b"k" * 32))


@given(st.integers(0, 10**12 - 1), st.integers(0, 20), st.sampled_from([SIGNER, None]))
def test_a_seal_of_the_writer_is_read(start: int, records: int, signer: Signer | None) -> None:
    lines = [record_line(NOW, f"2026-11-29/{number}.json", "0" * 64, number) for number in range(records)]
    entry = SealEntry(at=NOW, seal=SealFacts(entries=records + 1, feed="", next=NOW, upto=NOW))
    lines.append(entry.to_line())
    data = SealFile.made("rmos-runs/x", start, lines, entry, signer).to_bytes()
    seal = verifier.seal_file(data)
    assert seal is not None
    assert (seal.origin, seal.start, seal.lines) == ("rmos-runs/x", start, lines)
    labels = [f"rmos-runs/x+{signer.verifier.key_id.hex()}"] if signer else []
    assert [label for label, _ in seal.signatures] == labels
    assert data.startswith(seal.text)
    for bad in (data[:-1], data + b"\n", data + b"x\n", seal.text, data.replace(b"seal\n", b"seal \n", 1)):
        assert verifier.seal_file(bad) is None


def test_what_is_too_large_for_a_seal_is_none_and_costs_nothing() -> None:
    heading = b"rmos-runs seal\nrmos-runs/x\n0\n"
    began = time.perf_counter()
    most = (b"x\n" * verifier.SEAL_LINES)[:-1]
    assert verifier.seal_file(heading + most + b"\n\n") is not None
    assert verifier.seal_file(heading + most + b"\nx\n\n") is None
    assert verifier.seal_file(heading + b"x" * 65_535 + b"\n\n") is not None
    assert verifier.seal_file(heading + b"x" * 65_536 + b"\n\n") is None
    for newlines in (heading + b"\n" * verifier.SEAL_BYTES, b"\n" * verifier.SEAL_BYTES):
        assert verifier.seal_file(newlines) is None
    assert time.perf_counter() - began < 2


@given(st.binary(max_size=400))
def test_garbage_is_nothing(data: bytes) -> None:
    assert verifier.checkpoint(data) is None
    assert verifier.vkey(data.decode("utf-8", "surrogateescape"), verifier.ED25519) is None
    assert verifier.record(data) is None
    assert verifier.seal_of([data]) is None
    assert verifier.seal_file(data) is None
    verifier.unbundled(data)
