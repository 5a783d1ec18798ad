"""Key files: made for their owner alone, and refused with a reason that tells nothing of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import SecretStr

from rmos_shared.auditlog import keys
from rmos_shared.auditlog.note import KeyKind, Note, NoteInvalid, verified
from rmos_shared.errors import SettingsInvalid
from support.audit_log import ORIGIN


def pem_of(key: object, encryption: object = None) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()
    )


GOOD = pem_of(Ed25519PrivateKey.generate())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.pem"


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_new_key_is_its_owners_alone_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = keys.generate(path, ORIGIN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load_file(path, ORIGIN).vkey == made.vkey
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KeyKind)
def test_a_key_from_a_file_and_from_the_environment_signs_the_same(path: Path, kind: KeyKind) -> None:
    keys.generate(path, ORIGIN, kind)
    of_file = keys.load_file(path, ORIGIN, kind)
    of_text = keys.load_pem(SecretStr(path.read_text()), ORIGIN, kind)
    assert of_file.vkey == of_text.vkey
    assert of_file.verifier.kind is kind
    if kind is KeyKind.ED25519:
        note = Note("x\n").signed(of_text.sign("x\n"))
        assert verified(note, [of_file.verifier])[0].vkey == of_file.vkey


def test_a_key_is_never_written_over_anything(path: Path) -> None:
    write(path, b"something")
    with pytest.raises(keys.KeyFileExists, match="stays as it is"):
        keys.generate(path, ORIGIN)
    assert path.read_bytes() == b"something"
    path.unlink()
    elsewhere = path.with_name("elsewhere")
    path.symlink_to(elsewhere)
    with pytest.raises(keys.KeyFileExists):
        keys.generate(path, ORIGIN)
    assert not elsewhere.exists()


def test_a_key_that_cannot_be_written_is_told_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsInvalid, match="No such file or directory"):
        keys.generate(path / "below" / "it", ORIGIN)
    with pytest.raises(NoteInvalid):
        keys.generate(path, "a name with spaces")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SettingsInvalid, match="No space left"):
            keys.generate(path, ORIGIN)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_key_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    write(path, GOOD, mode)
    with pytest.raises(SettingsInvalid, match=r"others than its owner.*chmod 600"):
        keys.load_file(path, ORIGIN)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_only_its_owner_may_touch_is_taken(path: Path, mode: int) -> None:
    write(path, GOOD, mode)
    assert keys.load_file(path, ORIGIN).name == ORIGIN


SEED = Ed25519PrivateKey.generate()
WRONG = {
    "RSA": pem_of(rsa.generate_private_key(65537, 2048)),
    "another kind (E": pem_of(ec.generate_private_key(ec.SECP256R1())),
    "X25519": pem_of(X25519PrivateKey.generate()),
    "is encrypted": pem_of(SEED, BestAvailableEncryption(b"secret password")),
    "a public key": SEED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "no key in PEM": b"hello",
    "no key in PEM.": b"",
    "no key in PEM..": GOOD.replace(b"\n", b"", 2)[:60],
    "no key in PEM...": SEED.private_bytes_raw(),
}


@pytest.mark.parametrize("problem", WRONG)
def test_another_kind_of_key_is_named_and_nothing_of_it_told(path: Path, problem: str) -> None:
    data = WRONG[problem]
    write(path, data)
    with pytest.raises(SettingsInvalid) as raised:
        keys.load_file(path, ORIGIN)
    text = str(raised.value)
    assert problem.rstrip(".") in text
    assert "Ed25519 private key in PEM" in text
    assert str(path) in text
    with pytest.raises(SettingsInvalid) as raised:
        keys.load_pem(SecretStr(data.decode("utf-8", "surrogateescape")), ORIGIN)
    told = f"{text} {raised.value} {raised.value!r} {raised.value.__cause__} {raised.value.__context__}"
    assert "RMOS_AUDIT_KEY:" in str(raised.value)
    for line in data.split(b"\n"):
        if len(line) > 20 and not line.startswith(b"-----"):
            assert line.decode("utf-8", "replace")[:16] not in told


def test_what_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read: No such file"):
        keys.load_file(path, ORIGIN)
    path.mkdir()
    with pytest.raises(SettingsInvalid, match="is no file"):
        keys.load_file(path, ORIGIN)
    fifo = path.with_name("fifo")
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SettingsInvalid, match="is no file"):
        keys.load_file(fifo, ORIGIN)


def test_a_signer_shows_its_public_key_only(path: Path) -> None:
    signer = keys.generate(path, ORIGIN)
    secret = "".join(path.read_text().splitlines()[1:-1])[20:40]
    assert secret not in f"{signer!r} {signer} {vars(signer)} {signer.verifier!r}"
