"""Whatever happens to any file of a store is found: a thousand changes, drawn at random from a seed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coverage import Coverage
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from support import plant
from support.sealed_store import SealedStore, sealed_store

TRIALS = int(os.environ.get("RMOS_TEST_VERIFIER_TRIALS", "1000"))
SEED = int(os.environ.get("RMOS_TEST_VERIFIER_SEED", "13"))
AS_PROGRAM = 5
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
#: Every kind of file that a store holds: one is drawn first, then a file of it, so that each gets its share.
KINDS = (
    "20*/*",
    "_reviews/*/*/*",
    "_attachments/*/*",
    "_acts/*/*",
    "_store.json",
    "_log/seals/*/*/*/*",
    "_log/checkpoints/*/*/*/*",
    "_log/cosignatures/*/*/*/*",
    "_log/timestamps/*/*/*/*",
    "_log/tile/entries/*.p/*",
    "_log/tile/entries/???",
    "_log/tile/0/*.p/*",
    "_log/tile/0/???",
    "_log/tile/1/*.p/*",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    made = sealed_store(tmp_path_factory.mktemp("tampering") / "store", 140, per_seal=40)
    copy = plant.Copy(made.root, made.private, WITNESS)
    plant.cosign(copy, made.sizes[-1])
    text = copy.read(f"_log/checkpoints/{plant.grouped(made.sizes[2])}").partition(b"\n\n")[0] + b"\n"
    copy.put(f"_log/timestamps/{plant.grouped(made.sizes[2])}.tsr", plant.token(text))
    return made


class Tracked(plant.Copy):
    """A copy that can be made as it was, without making it anew."""

    def __init__(self, root: Path, private: Ed25519PrivateKey) -> None:
        super().__init__(root, private, WITNESS)
        self._touched: set[str] = set()

    def put(self, key: str, data: bytes, at: float | None = None) -> None:
        self._touched.add(key)
        super().put(key, data, at)

    def remove(self, key: str) -> None:
        self._touched.add(key)
        super().remove(key)

    def restore(self, base: Path) -> None:
        for key in self._touched:
            (self.root / key).unlink(missing_ok=True)
            if (base / key).exists():
                os.link(base / key, self.root / key)
        self._touched.clear()


Tamper = Callable[[random.Random, plant.Copy, str], str]


def flip(chance: random.Random, copy: plant.Copy, key: str) -> str:
    data = bytearray(copy.read(key))
    # Of a time stamp only what it stamps is looked at: `openssl ts -verify` proves the rest.
    most = len(data) - len(b"signed") if key.endswith(".tsr") else len(data)
    least = 5 if key.endswith(".tsr") else 0
    data[chance.randrange(least, most)] ^= 1 << chance.randrange(8)
    copy.put(key, bytes(data))
    return key


def truncate(chance: random.Random, copy: plant.Copy, key: str) -> str:
    data = copy.read(key)
    copy.put(key, data[: chance.randrange(len(data))])
    return key


def append(chance: random.Random, copy: plant.Copy, key: str) -> str:
    copy.put(key, copy.read(key) + chance.choice([b"\n", b"\0", b" ", chance.randbytes(5), copy.read(key)]))
    return key


def delete(_: random.Random, copy: plant.Copy, key: str) -> str:
    copy.remove(key)
    return key


def swap(chance: random.Random, copy: plant.Copy, key: str) -> str:
    other = chance.choice([path for path in copy.files("**/*") if copy.read(path) != copy.read(key)])
    data = copy.read(key)
    copy.put(key, copy.read(other))
    copy.put(other, data)
    return f"{key} and {other}"


def add(chance: random.Random, copy: plant.Copy, key: str) -> str:
    """Add a file beside another, with a name much like its own, and its time."""
    at = (copy.root / key).stat().st_mtime
    name = Path(key).name
    while (copy.root / key).parent.joinpath(name).exists():
        place = chance.randrange(len(name))
        name = name[:place] + chance.choice("0123456789abcdef.x") + name[place + chance.randrange(2) :]
    if name.startswith("_store.") and len(name) == len("_store.") + 16:
        name += "0"
    new = str(Path(key).parent / name)
    copy.put(new, copy.read(key), at)
    return new


def symlink(_: random.Random, copy: plant.Copy, key: str) -> str:
    elsewhere = copy.root.with_name("elsewhere")
    elsewhere.write_bytes(copy.read(key))
    copy.remove(key)
    (copy.root / key).symlink_to(elsewhere)
    return key


TAMPERS: tuple[Tamper, ...] = (flip, truncate, append, delete, swap, add, symlink)


@pytest.mark.timeout(600)
def test_a_thousand_changes_are_all_found(
    base: SealedStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - a seed, no secret
    words = ["--key", base.vkey, "--witness", plant.vkey(plant.WITNESS, 4, WITNESS), "--json"]
    unnoticed = []
    done: Counter[str] = Counter()
    root = tmp_path / "copy"
    plant.linked(base.root, root)
    copy = Tracked(root, base.private)
    with unmeasured():
        for trial in range(TRIALS):
            tamper, kind = chance.choice(TAMPERS), chance.choice(KINDS)
            if tamper is delete and kind == "_log/timestamps/*/*/*/*":
                tamper = flip  # nothing tells that there was one
            files = copy.files(kind)
            assert files, kind
            where = tamper(chance, copy, chance.choice(files))
            if trial % (TRIALS // AS_PROGRAM or 1) == 0:
                code = _program(root, words)
            else:
                code = verifier.main(["verify", str(root), *words, "--jobs", "1"])
                out = capsys.readouterr()
                assert code != 7 or json.loads(out.out)["findings"]
            done[tamper.__name__] += 1
            if code != 7:
                unnoticed.append((trial, tamper.__name__, where, code))
            copy.restore(base.root)
    assert verifier.main(["verify", str(root), *words]) == 0
    assert done.total() == TRIALS
    assert not unnoticed


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure no coverage meanwhile: it makes the verifier three times as slow."""
    measuring = Coverage.current()
    if measuring is not None:
        measuring.stop()
    try:
        yield
    finally:
        if measuring is not None:
            measuring.start()


def _program(root: Path, words: list[str]) -> int:
    command = [sys.executable, "-I", verifier.__file__, "verify", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr
    return done.returncode
