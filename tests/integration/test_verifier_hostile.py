"""Whatever lies in a store, the verifier says what is wrong and ends: no traceback, no wait, no way out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from support import plant
from support.sealed_store import SealedStore, sealed_store

HUGE = 1 << 40
SECONDS = 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    return sealed_store(tmp_path_factory.mktemp("hostile") / "store", 60, per_seal=40)


@pytest.fixture
def copy(base: SealedStore, tmp_path: Path) -> plant.Copy:
    plant.linked(base.root, tmp_path / "copy")
    return plant.Copy(tmp_path / "copy", base.private, Ed25519PrivateKey.generate())


def _some_of_each(copy: plant.Copy) -> list[str]:
    """Return a file of every kind."""
    patterns = (
        "20*/*.json",
        "_store.json",
        "_log/seals/*/*/*/*",
        "_log/checkpoints/*/*/*/*",
        "_log/tile/0/*.p/*",
        "_log/tile/entries/*.p/*",
    )
    return [copy.files(pattern)[0] for pattern in patterns] + [copy.files("_log/checkpoints/*/*/*/*")[-1]]


def fifos(copy: plant.Copy) -> None:
    for key in _some_of_each(copy):
        copy.remove(key)
        os.mkfifo(copy.root / key)


def directories(copy: plant.Copy) -> None:
    for key in _some_of_each(copy):
        copy.remove(key)
        (copy.root / key / "inside").mkdir(parents=True)


def sockets(copy: plant.Copy) -> None:
    here = Path.cwd()
    for key in _some_of_each(copy):
        copy.remove(key)
        os.chdir((copy.root / key).parent)  # the path of a socket is short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(Path(key).name)
        finally:
            os.chdir(here)


def links_to_what_never_ends(copy: plant.Copy) -> None:
    for key in _some_of_each(copy):
        copy.remove(key)
        (copy.root / key).symlink_to("/dev/zero")


def links_to_themselves(copy: plant.Copy) -> None:
    for key in _some_of_each(copy):
        copy.remove(key)
        (copy.root / key).symlink_to(Path(key).name)
    (copy.root / "round").symlink_to(".")


def a_linked_day(copy: plant.Copy) -> None:
    day = copy.root / copy.artifacts()[0].partition("/")[0]
    elsewhere = copy.root.with_name("elsewhere")
    shutil.move(day, elsewhere)
    day.symlink_to(elsewhere)


def a_linked_log(copy: plant.Copy) -> None:
    shutil.move(copy.root / "_log", copy.root.with_name("log"))
    (copy.root / "_log").symlink_to(copy.root.with_name("log"))


def a_log_that_is_a_file(copy: plant.Copy) -> None:
    shutil.rmtree(copy.root / "_log")
    copy.put("_log", b"x")


def seals_that_are_a_file(copy: plant.Copy) -> None:
    shutil.rmtree(copy.root / "_log/seals")
    copy.put("_log/seals", b"x")


def no_log(copy: plant.Copy) -> None:
    shutil.rmtree(copy.root / "_log")


def huge_files(copy: plant.Copy) -> None:
    for key in _some_of_each(copy):
        copy.put(key, b"")
        os.truncate(copy.root / key, HUGE)


def huge_strangers(copy: plant.Copy) -> None:
    for key in ("_log/more", "20.json", "_attachments/ab/x"):
        copy.put(key, b"")
        os.truncate(copy.root / key, HUGE)


def a_seal_of_newlines(copy: plant.Copy) -> None:
    copy.put(f"_log/seals/{plant.grouped(copy.sizes()[-1])}", b"\n" * ((1 << 26) - 1))
    key = copy.files("_log/seals/*/*/*/*")[0]
    copy.put(key, copy.read(key)[:90] + b"\n" * (1 << 25))


def a_seal_of_many_lines(copy: plant.Copy) -> None:
    for start in (0, copy.sizes()[-1]):
        heading = b"rmos-runs seal\n%b\n%d\n" % (copy.origin.encode(), start)
        copy.put(f"_log/seals/{plant.grouped(start)}", heading + b"x\n" * (1 << 24) + b"\n")


def seals_of_long_lines(copy: plant.Copy) -> None:
    plant.pending(copy, before=(b"x" * 70_000,))
    for key in copy.files("_log/seals/*/*/*/*")[:2]:
        text, _, tail = copy.read(key).partition(b"\n\n")
        copy.put(key, text + b"\n" + b"\n".join([b"x" * 70_000] * 300) + b"\n\n" + tail)


def bundles_of_nothing(copy: plant.Copy) -> None:
    """Bundles with sixteen million entries of no bytes are read, because seals are missing."""
    for key in copy.files("_log/seals/*/*/*/*"):
        copy.remove(key)
    for key in copy.files("_log/tile/entries/**/*"):
        copy.put(key, b"\0" * (1 << 25))


def deep_json(copy: plant.Copy) -> None:
    copy.put("_store.json", b"[" * 4_000 + b"]" * 4_000)
    for key in copy.files("_log/seals/*/*/*/*"):
        copy.put(key, b'{"a":' * 10_000 + b"\n" + copy.read(key))


def deep_json_in_every_copy_of_an_entry(copy: plant.Copy) -> None:
    """A log that is right in itself, with entries that are none."""
    seals = copy.seals()
    seals[0][0] = b'{"a":' * 10_000
    seals[0][1] = b""
    seals[0][2] = b"\xff" * 300
    seals[1][-1] = seals[1][-1].replace(b"entries", b"entrees")
    copy.write_log(seals)


def hostile_keys(copy: plant.Copy) -> None:
    """Entries that lead out of the store, in a log that is right in itself."""
    seals = copy.seals()
    for at, key in enumerate(
        ("../../../etc/passwd", "/etc/passwd", "_log/x", "_store.json", "a//b", "x/./y", "a\nb")
    ):
        seals[0][at] = plant.changed(seals[0][at], key=key, sha256="0" * 64)
    copy.write_log(seals)


def impossible_times(copy: plant.Copy) -> None:
    seals = copy.seals()
    seals[0][0] = plant.changed(seals[0][0], at="2026-02-30T99:99:99.000Z")
    seals[0][-1] = plant.resealed(seals[0][-1], next="0000-00-00T00:00:00.000Z")
    seals[1][-1] = plant.resealed(
        seals[1][-1], next="9999-12-31T23:59:59.999Z", upto="0001-01-01T00:00:00.000Z"
    )
    copy.write_log(seals)


def strange_names(copy: plant.Copy) -> None:
    root = os.fsencode(copy.root)
    for name in (b"\xff\xfe", b"\x1b[31mred", b"line\nline", b"-rf", "ünï".encode(), b" ", b"x" * 255):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(b"")
        Path(os.fsdecode(root + b"/_log/" + name)).write_bytes(b"")


def deep_directories(copy: plant.Copy) -> None:
    path = copy.root
    for _ in range(300):
        path /= "d"
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"")


def truncated_tiles(copy: plant.Copy) -> None:
    for key in copy.files("_log/tile/**/*"):
        copy.put(key, copy.read(key)[:-1])


def garbage_everywhere(copy: plant.Copy) -> None:
    for number, key in enumerate(copy.files("_log/**/*")):
        copy.put(key, bytes((number * 7 + place * place) % 256 for place in range(number * 3)))


def garbage_notes(copy: plant.Copy) -> None:
    keys = copy.files("_log/checkpoints/*/*/*/*")
    good = copy.read(keys[0])
    notes = [b"", b"\n\n", good * 2000, b"\xff" + good, good.replace(b"\n", b"\r\n"), good[:-2], b"\0" * 99]
    for key, note in zip(keys, notes, strict=False):
        copy.put(key, note)
    for number, note in enumerate(notes):
        copy.put(f"_log/cosignatures/{plant.grouped(number + 1)}_0badcafe", note)
        copy.put(f"_log/timestamps/{plant.grouped(number + 1)}.tsr", note)


def numbers_that_are_none(copy: plant.Copy) -> None:
    for name in ("-01", "1e9", "٠١٢", "999"):
        copy.put(f"_log/seals/999/999/999/{name}", b"x\n")
        copy.put(f"_log/checkpoints/{name}/000/000/001", b"x\n")


HOSTILE = (
    fifos,
    directories,
    sockets,
    links_to_what_never_ends,
    links_to_themselves,
    a_linked_day,
    a_linked_log,
    a_log_that_is_a_file,
    seals_that_are_a_file,
    no_log,
    huge_files,
    huge_strangers,
    a_seal_of_newlines,
    a_seal_of_many_lines,
    seals_of_long_lines,
    bundles_of_nothing,
    deep_json,
    deep_json_in_every_copy_of_an_entry,
    hostile_keys,
    impossible_times,
    strange_names,
    deep_directories,
    truncated_tiles,
    garbage_everywhere,
    garbage_notes,
    numbers_that_are_none,
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_store_is_found_out_and_never_believed(
    hostile: Callable[[plant.Copy], None],
    base: SealedStore,
    copy: plant.Copy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile(copy)
    began = time.monotonic()
    assert verifier.main(["verify", str(copy.root), "--key", base.vkey, "--jobs", "1"]) == 7
    text = capsys.readouterr()
    assert not text.err
    assert all(character.isprintable() or character == "\n" for character in text.out)
    assert verifier.main(["verify", str(copy.root), "--json"]) == 7
    out = capsys.readouterr()
    assert not out.err
    assert json.loads(out.out)["findings"]
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("kind", ["nothing", "a file", "empty", "another directory"])
def test_what_is_no_store_is_away(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    if kind == "a file":
        path.write_bytes(b"")
    elif kind != "nothing":
        path.mkdir()
    if kind == "another directory":
        (path / "notes.txt").write_bytes(b"")
    assert verifier.main(["verify", str(path)]) == 6
    out = capsys.readouterr()
    assert not out.out
    assert out.err.startswith("error: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_not_proven(
    base: SealedStore, copy: plant.Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    key = copy.artifacts()[0]
    copy.put(key, copy.read(key))
    (copy.root / key).chmod(0)
    assert verifier.main(["verify", str(copy.root), "--key", base.vkey]) == 7
    assert f"modified: {key}: it cannot be opened: Permission denied" in capsys.readouterr().out


def test_a_reader_that_goes_away_gets_no_traceback(base: SealedStore, copy: plant.Copy) -> None:
    for key in copy.artifacts():
        copy.remove(key)
    command = [sys.executable, "-I", verifier.__file__, "verify", str(copy.root), "--key", base.vkey]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=SECONDS) in {1, 7}
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
