"""What the verifier remembers for the next time, what it prints of odd names, and which files it opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.proof import prove
from support import plant
from support.sealed_store import SealedStore, sealed_store

STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    return sealed_store(tmp_path_factory.mktemp("memory") / "store", 60, per_seal=20)


@pytest.fixture
def copy(base: SealedStore, tmp_path: Path) -> plant.Copy:
    plant.linked(base.root, tmp_path / "copy")
    return plant.Copy(tmp_path / "copy", base.private, STRANGER)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def verify(copy: plant.Copy, *words: object) -> int:
    return verifier.main(["verify", str(copy.root), *map(str, words)])


def checkpoint(copy: plant.Copy, which: int) -> bytes:
    return copy.read(f"_log/checkpoints/{plant.grouped(copy.sizes()[which])}")


def longer(copy: plant.Copy, private: Ed25519PrivateKey | None) -> None:
    """Write the log anew with a seal more, as anybody can who has this key, or none."""
    copy.write_log(
        [*copy.seals(), [plant.resealed(copy.seals()[-1][-1], entries=1)]],
        lambda _, text: plant.signed(text, copy.origin, private) if private else f"{text}\n".encode(),
    )


def test_it_never_steps_back(copy: plant.Copy, base: SealedStore, state: Path) -> None:
    """The newest checkpoint is gone and a seal planted behind it: the log is as long as before."""
    words = ("--key", base.vkey, "--state", state)
    assert verify(copy, *words) == 0
    remembered = state.read_bytes()
    key = f"_log/checkpoints/{plant.grouped(base.sizes[-1])}"
    plant.pending(copy)
    copy.remove(key)
    assert verify(copy, *words) == 7
    assert state.read_bytes() == remembered


@pytest.mark.parametrize("place", [plant.inconsistent_pending_unsigned, plant.PLANTED["missing"][-1]])
def test_it_does_not_go_on_while_the_log_is_damaged(
    place: plant.Plant, copy: plant.Copy, base: SealedStore, state: Path
) -> None:
    before = checkpoint(copy, 0)
    state.write_bytes(before)
    place(copy)
    assert verify(copy, "--key", base.vkey, "--state", state, "--jobs", 2) == 7
    assert state.read_bytes() == before


def test_records_that_are_missing_or_modified_do_not_keep_it(
    copy: plant.Copy, base: SealedStore, state: Path
) -> None:
    plant.missing_artifact(copy)
    plant.modified_link(copy)
    assert verify(copy, "--key", base.vkey, "--state", state) == 7
    assert state.read_bytes() == checkpoint(copy, -1)


def test_nobody_without_a_key_changes_what_is_remembered_of_a_signed_log(
    copy: plant.Copy, base: SealedStore, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(copy, "--state", state) == 0
    assert not state.exists()
    assert "--state stays as it is, for no --key was given" in capsys.readouterr().out
    assert verify(copy, "--key", base.vkey, "--state", state) == 0
    remembered = state.read_bytes()
    for private in (STRANGER, None):
        longer(copy, private)
        assert verify(copy, "--state", state) == 0
        assert state.read_bytes() == remembered


def test_an_unsigned_log_is_remembered_without_a_key(tmp_path: Path, state: Path) -> None:
    made = sealed_store(tmp_path / "unsigned", 20, signed=False)
    copy = plant.Copy(made.root, made.private, STRANGER)
    assert verify(copy, "--state", state) == 0
    longer(copy, None)
    assert verify(copy, "--state", state) == 0
    assert state.read_bytes() == checkpoint(copy, -1)
    copy.write_log(copy.seals()[:-2])
    assert verify(copy, "--state", state) == 7
    assert state.read_bytes() != checkpoint(copy, -1)


def test_what_was_found_is_told_though_the_memory_cannot_be_written(
    copy: plant.Copy,
    base: SealedStore,
    state: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    words = ("--key", base.vkey, "--state", state)
    assert verify(copy, *words) == 2
    (key,) = plant.missing_artifact(copy)
    capsys.readouterr()
    assert verify(copy, *words) == 7
    out = capsys.readouterr()
    assert out.out.startswith(f"missing: {key}: ")
    assert out.err == f"error: {state} cannot be written: No space left on device\n"
    assert not list(state.parent.glob(".state*"))


# -- JSON of odd names ------------------------------------------------------------------------------------


def test_json_is_json_whatever_a_name_holds(copy: plant.Copy, base: SealedStore, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xc3\xbc \xff\x1b")
    copy.root.rename(root)
    for name in (b"\xff", "\u00fc\u2028".encode(), b"\x1b\n"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"")
    for encoding in ("utf-8", "ascii"):
        command = [sys.executable, verifier.__file__, "verify", str(root), "--key", base.vkey, "--json"]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (7, b"")
        told = json.loads(done.stdout)
        assert len(told["findings"]) == 3
        assert os.fsencode(told["summary"]["store"]) == os.fsencode(root)


@pytest.fixture
def proof(base: SealedStore, tmp_path: Path) -> Path:
    path = tmp_path / "proof"
    path.write_bytes(prove(AuditLog(base.store, base.origin), 0).to_bytes())
    return path


def test_the_json_of_a_proof_is_json_whoever_signed_it(
    copy: plant.Copy, proof: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signer = "x\x80\U000e0001y"
    proof.write_bytes(proof.read_bytes() + plant.signed("", signer, STRANGER)[1:])
    key = json.loads(copy.seals()[0][0])["key"]
    assert verifier.main(["check", str(proof), str(copy.root / key), "--json"]) == 0
    assert f", {signer}+" in json.loads(capsys.readouterr().out)["proven"]


def test_a_pipe_is_no_file(
    copy: plant.Copy, proof: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    key = json.loads(copy.seals()[0][0])["key"]
    for words, code in (
        (("check", proof, pipe), 6),
        (("check", pipe, copy.root / key), 2),
        (("verify", copy.root, "--since", pipe), 2),
        (("verify", copy.root, "--state", pipe), 2),
    ):
        assert verifier.main([str(word) for word in words]) == code
        assert capsys.readouterr().err == f"error: {pipe} cannot be read: it is no regular file\n"
