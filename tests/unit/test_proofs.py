"""Proofs in packs and exports: of every record, the same whenever they are made, and true."""

from __future__ import annotations

import io
import os
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmos_runs.operations.export import Export
from rmos_runs.operations.pack import stream_pack
from rmos_runs.operations.proofs import Prover, Stored
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry
from rmos_shared.auditlog.layout import BUNDLES, LOG, cosignature_key
from rmos_shared.auditlog.note import KeyKind, Note
from rmos_shared.auditlog.proof import InclusionProof, Proven, check
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import CorruptArtifact
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.query import RunFilter
from support.records import HOUR, NOON, make_attempt, make_link, make_review, make_run
from support.sealed import SealedStore, new_signer

LARGE = b"G1 X1\n" * 50_000


@pytest.fixture
def shop(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "runs")


def whole_run(shop: SealedStore) -> RunArtifact:
    """A run with all that a run can have; its link is sealed after it, and what others decided after that."""
    key = shop.runs.writer.put_attachment(LARGE, ".nc")
    run = make_run(
        outputs={"gcode_path": key},
        hashes={
            "feasibility_sha256": make_run().hashes.feasibility_sha256,
            "gcode_sha256": sha256_hex(LARGE),
        },
    )
    shop.runs.writer.put_run(run)
    shop.seal()
    link = make_link(run)
    shop.runs.writer.attach(link)
    shop.grow(300)
    shop.runs.writer.add_review(make_review(link))
    shop.runs.writer.add_attempt(make_attempt(run))
    return run


def pack(shop: SealedStore, run: RunArtifact) -> bytes:
    return b"".join(stream_pack(run.run_id, shop.runs.reader, shop.store, None))


def files_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    lines = [line.split("  ", 1) for line in files["MANIFEST.sha256"].decode().splitlines()]
    told = {name: digest for digest, name in lines}
    assert told == {name: sha256_hex(data) for name, data in files.items() if name != "MANIFEST.sha256"}
    return files


def proven(shop: SealedStore, proof: bytes, data: bytes) -> Proven:
    return check(InclusionProof.parse(proof), data, [shop.signer.verifier])


def key_in(found: Proven) -> str:
    assert isinstance(found.entry, RecordEntry)
    return found.entry.key


def test_a_pack_proves_every_record_that_it_holds(shop: SealedStore) -> None:
    run = whole_run(shop)
    shop.seal()
    files = files_of(pack(shop, run))
    proofs = {name.removeprefix("proof/"): data for name, data in files.items() if name.startswith("proof/")}
    records = [name for name in files if name.split("/")[0] in {"artifact.json", "links", "reviews"}]
    records += [name for name in files if name.startswith(("attempts/", "attachments/"))]
    assert len(records) == 5
    assert set(proofs) == {f"{name}.tlog-proof" for name in records}
    sizes = {}
    for name in records:
        found = proven(shop, proofs[f"{name}.tlog-proof"], files[name])
        assert shop.store.get(key_in(found)) == files[name]
        sizes[name] = found.checkpoint.size
    # Each against the first checkpoint that has it: the run's own seal, the link's, the last.
    assert sizes["artifact.json"] < sizes["links/adv1.json"] < sizes["reviews/rev1.json"] == shop.newest.size
    readme = files["README.txt"].decode()
    assert f"log         {shop.origin}" in readme
    assert f"{shop.newest.size} entries, root {shop.newest.text.splitlines()[2]}" in readme
    assert f"{shop.origin}+{shop.signer.verifier.key_id.hex()}+..." in readme
    assert "Not in the audit log yet" not in readme
    assert shop.signer.vkey not in readme


def test_a_pack_made_later_from_a_longer_log_is_the_same_bytes(shop: SealedStore, tmp_path: Path) -> None:
    run = whole_run(shop)
    shop.seal()
    first = pack(shop, run)
    assert pack(shop, run) == first
    shop.grow(500)
    witness = new_signer("w.example", KeyKind.COSIGNATURE)
    for size in shop.log.sizes():
        text = shop.log.checkpoint(size).text
        line = witness.sign(text, datetime.now(UTC))
        shop.store.create(
            cosignature_key(size, witness.verifier.key_id.hex()), Note(text, (line,)).to_bytes()
        )
    assert pack(shop, run) == first
    # And from a copy whose files all are of today, as a careless restore leaves them.
    copy = shop.copy(tmp_path / "copy")
    now = time.time() + 86_400
    for path in copy.root.rglob("*"):
        os.utime(path, (now, now))
    assert pack(copy, run) == first


def test_what_is_not_sealed_yet_has_no_proof_and_is_named(shop: SealedStore) -> None:
    run = whole_run(shop)
    files = files_of(pack(shop, run))
    readme = files["README.txt"].decode()
    missing = readme.partition("Not in the audit log yet, so not proven:\n")[2].split()
    assert sorted(name.split("/")[0] for name in missing) == ["attempts", "reviews"]
    assert {f"proof/{name}.tlog-proof" for name in missing}.isdisjoint(files)
    assert "proof/artifact.json.tlog-proof" in files


def test_without_a_log_a_pack_says_that_nothing_is_proven(shop: SealedStore) -> None:
    run = make_run()
    shop.runs.writer.put_run(run)
    files = files_of(pack(shop, run))
    assert not any(name.startswith("proof/") for name in files)
    assert "nothing is proven of them" in files["README.txt"].decode()


def test_a_record_that_was_changed_since_it_was_sealed_is_refused(shop: SealedStore) -> None:
    """The file is valid in itself; only the log knows that it is not the one of then."""
    run = make_run()
    shop.runs.writer.put_run(run)
    shop.seal()
    changed = make_run(run_id=run.run_id, tool_id="endmill-6.35")
    key = f"{run.date}/{run.run_id}.json"
    path = shop.root / key
    path.chmod(0o640)
    path.write_bytes(changed.to_bytes())
    with pytest.raises(CorruptArtifact, match="another content than entry 0 of the audit log tells"):
        pack(shop, run)
    export = Export(StoreCatalog(shop.runs.reader, shop.store), RunFilter(), shop.runs.reader, shop.store)
    files = files_of(b"".join(export))
    assert list(export.damaged) == [key]
    assert "another content" in files["DAMAGED.txt"].decode()


def test_a_damaged_log_refuses_a_pack_and_leaves_an_export_its_records(shop: SealedStore) -> None:
    run = make_run()
    shop.runs.writer.put_run(run)
    shop.seal()
    for path in (shop.root / BUNDLES).rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        pack(shop, run)
    export = Export(StoreCatalog(shop.runs.reader, shop.store), RunFilter(), shop.runs.reader, shop.store)
    files = files_of(b"".join(export))
    assert f"runs/{run.run_id}/artifact.json" in files
    assert "missing" in files["DAMAGED.txt"].decode()


def test_an_export_proves_all_runs_in_one_pass_over_the_log(
    shop: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(NOON + number * HOUR) for number in range(40)]
    for number, run in enumerate(runs):
        shop.runs.writer.put_run(run)
        if number % 10 == 9:
            shop.grow(400)
    unsealed = make_run(NOON + 50 * HOUR)
    shop.runs.writer.put_run(unsealed)
    bundles = -(-shop.newest.size // 256)
    read: list[str] = []
    get = type(shop.store).get

    def counting(store: object, key: str) -> bytes | None:
        if key.startswith(BUNDLES):
            read.append(key)
        return get(store, key)  # type: ignore[arg-type]

    monkeypatch.setattr(type(shop.store), "get", counting)
    catalog = StoreCatalog(shop.runs.reader, shop.store)
    export = b"".join(Export(catalog, RunFilter(), shop.runs.reader, shop.store))
    # One pass, the place where it begins, and a bundle for each seal that a proof leads to.
    assert len(read) <= bundles + 16 + 2 * len(list(shop.log.sizes()))
    files = files_of(export)
    for run in runs:
        folder = f"runs/{run.run_id}"
        proof = files[f"{folder}/proof/artifact.json.tlog-proof"]
        assert key_in(proven(shop, proof, files[f"{folder}/artifact.json"])).endswith(f"{run.run_id}.json")
    told = files["PROOFS.txt"].decode()
    assert told.partition("so not proven:\n")[2].split() == [f"runs/{unsealed.run_id}/artifact.json"]
    assert f"runs/{runs[0].run_id}/" in told
    assert b"".join(Export(catalog, RunFilter(), shop.runs.reader, shop.store)) == export


def test_against_the_newest_checkpoint_a_proof_shows_what_witnesses_signed(shop: SealedStore) -> None:
    run = make_run()
    shop.runs.writer.put_run(run)
    shop.seal()
    shop.grow(3)
    witness = new_signer("w.example", KeyKind.COSIGNATURE)
    text, at = shop.newest.text, datetime.now(UTC) - timedelta(seconds=5)
    place = cosignature_key(shop.newest.size, witness.verifier.key_id.hex())
    shop.store.create(place, Note(text, (witness.sign(text, at),)).to_bytes())
    # Of another's, that is damaged, nothing is taken.
    shop.store.create(place[:-1] + "z", b"no note")
    key = f"{run.date}/{run.run_id}.json"
    data = shop.store.get(key) or b""
    prover = Prover(shop.store, newest=True)
    ((index, found),) = prover.find({key: None})
    assert found == key
    proof = prover.prove(index, Stored(key, sha256_hex(data)))
    shown = check(proof.proof, data, [shop.signer.verifier, witness.verifier])
    assert shown.checkpoint == shop.newest
    assert [one.name for one in shown.signatures] == [shop.origin, "w.example"]
    assert shown.signatures[1].at == at.replace(microsecond=0)


def test_a_proof_of_another_file_or_of_another_place_is_none(shop: SealedStore) -> None:
    shop.grow(5)
    prover = Prover(shop.store)
    with pytest.raises(CorruptArtifact):
        prover.prove(0, Stored("_batches/000001.json", "0" * 64))
    assert prover.find({"nowhere/none.json": None}) == []
    assert not any(key.startswith(LOG) for _, key in prover.find(dict.fromkeys(shop.store.list(LOG))))
    assert isinstance(shop.newest, Checkpoint)
