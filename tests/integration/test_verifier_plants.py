"""Each thing that can be done to a store is found by its name, and nothing else is.

The store has ``RMOS_TEST_VERIFIER_RUNS`` runs (400 by default).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from support import plant
from support.sealed_store import SealedStore, sealed_store

RUNS = int(os.environ.get("RMOS_TEST_VERIFIER_RUNS", "400"))
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS_KEY = plant.vkey(plant.WITNESS, 4, WITNESS)
CASES = [
    pytest.param(kind, place, id=f"{kind}-{place.__name__}-{number}")
    for kind, places in plant.PLANTED.items()
    for number, place in enumerate(places)
]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    return sealed_store(tmp_path_factory.mktemp("clean") / "store", RUNS)


@pytest.fixture
def copy(clean: SealedStore, tmp_path: Path) -> Iterator[plant.Copy]:
    root = tmp_path / "copy"
    plant.linked(clean.root, root)
    yield plant.Copy(root, clean.private, WITNESS)
    subprocess.run(["rm", "-rf", root], check=True, timeout=120)


def found(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, set[str]]]:
    """Run the verifier; return its exit code and the keys of each kind that it found."""
    capsys.readouterr()
    code = verifier.main(["verify", *words, "--json"])
    told = json.loads(capsys.readouterr().out)
    keys: dict[str, set[str]] = {}
    for finding in told["findings"]:
        assert finding["detail"]
        keys.setdefault(finding["kind"], set()).add(finding["key"])
    assert told["summary"]["findings"].keys() == keys.keys()
    return code, keys


def test_a_clean_store_has_no_finding(
    clean: SealedStore, copy: plant.Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found(capsys, str(clean.root), "--key", clean.vkey) == (0, {})
    plant.cosign(copy, clean.sizes[-1])
    plant.cosign(copy, clean.sizes[1])
    for size in clean.sizes[:2]:
        text = copy.read(f"_log/checkpoints/{plant.grouped(size)}").partition(b"\n\n")[0] + b"\n"
        copy.put(f"_log/timestamps/{plant.grouped(size)}.tsr", plant.token(text))
    assert found(capsys, str(copy.root), "--key", clean.vkey, "--witness", WITNESS_KEY) == (0, {})
    assert found(capsys, str(copy.root)) == (0, {})


def test_the_planter_writes_the_log_as_the_sealer_does(clean: SealedStore, copy: plant.Copy) -> None:
    copy.write_log(copy.seals())
    for path in (clean.root / "_log").rglob("*"):
        if path.is_file():
            assert (copy.root / path.relative_to(clean.root)).read_bytes() == path.read_bytes()


def test_every_kind_is_planted() -> None:
    assert plant.PLANTED.keys() | {"rolled_back"} == set(verifier.KINDS)


@pytest.mark.parametrize(("kind", "place"), CASES)
def test_what_is_planted_is_found_by_name_and_nothing_else_is(
    kind: str,
    place: plant.Plant,
    clean: SealedStore,
    copy: plant.Copy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = place(copy)
    words = ["--witness", WITNESS_KEY] if any(copy.root.glob("_log/cosignatures/*/*/*/*")) else []
    if place is plant.extra_in_the_log:
        words = []
    assert found(capsys, str(copy.root), "--key", clean.vkey, *words) == (7, {kind: expected})


@pytest.mark.parametrize("memory", ["--state", "--since", "--witness"])
def test_a_log_that_was_cut_is_rolled_back_for_whoever_remembers_it(
    memory: str, clean: SealedStore, copy: plant.Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    words = ["--key", clean.vkey]
    if memory == "--witness":
        key = plant.cosign(copy, clean.sizes[-1])
        cosigned = copy.read(key)
        words += [memory, WITNESS_KEY]
        assert found(capsys, str(copy.root), *words) == (0, {})
    else:
        assert found(capsys, str(copy.root), *words, "--state", str(kept)) == (0, {})
        words += [memory, str(kept)]
        assert found(capsys, str(copy.root), *words) == (0, {})
    plant.rolled_back(copy)
    if memory == "--witness":
        copy.put(key, cosigned)
    expected = key if memory == "--witness" else str(kept)
    assert found(capsys, str(copy.root), *words) == (7, {"rolled_back": {expected}})
    # What it remembers is not forgotten.
    assert found(capsys, str(copy.root), *words) == (7, {"rolled_back": {expected}})


def test_nobody_remembers_a_log_that_was_cut_with_its_records(
    clean: SealedStore, copy: plant.Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.rolled_back(copy)
    assert found(capsys, str(copy.root), "--key", clean.vkey) == (0, {})


def test_a_log_written_anew_with_its_own_key_is_found_by_whoever_remembers_it(
    clean: SealedStore, copy: plant.Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, words = str(tmp_path / "kept"), [str(copy.root), "--key", clean.vkey]
    assert found(capsys, *words, "--state", kept) == (0, {})
    seals = copy.seals()
    seals[0][0] = plant.changed(seals[0][0], found="adopted")
    copy.write_log(seals)
    assert found(capsys, *words) == (0, {})
    assert found(capsys, *words, "--state", kept) == (7, {"inconsistent": {kept}})
    assert found(capsys, *words, "--since", kept) == (7, {"inconsistent": {kept}})


def test_a_seal_that_is_late_is_a_gap_in_a_live_store(
    clean: SealedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"_log/checkpoints/{plant.grouped(clean.sizes[-1])}"
    assert found(capsys, str(clean.root), "--key", clean.vkey, "--live") == (7, {"gap": {expected}})
