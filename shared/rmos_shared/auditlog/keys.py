"""The keys of logs and witnesses. Private ones: PEM, PKCS#8, Ed25519, readable by their owner alone.

No error tells anything of a key's content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import SecretStr

from rmos_shared.auditlog.note import KeyKind, Signer
from rmos_shared.errors import Conflict, SettingsInvalid

_MODE = 0o600
_PUBLIC_MODE = 0o644
#: More than any key needs; a larger file is none.
_MOST_BYTES = 16_384
_KIND = "an Ed25519 private key in PEM (PKCS#8), as `rmos audit keygen` makes it"


class KeyFileExists(Conflict):
    """A key is never written over another file."""

    code = "KEY_FILE_EXISTS"

    def __init__(self, path: Path) -> None:
        """Name the file."""
        super().__init__(f"{path} is there already, and stays as it is; name another file")


def generate(path: Path, name: str, kind: KeyKind = KeyKind.ED25519) -> Signer:
    """Make a new key in a file that is new too, mode 0600, durably; return it under ``name``.

    Raises:
        KeyFileExists: there is a file.
        SettingsInvalid: the file cannot be written.
        NoteInvalid: no key has this name.
    """
    key = Ed25519PrivateKey.generate()
    signer = Signer(name, key, kind)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write(path, pem, _MODE)
    except FileExistsError:
        raise KeyFileExists(path) from None
    except OSError as error:
        raise SettingsInvalid(f"no key can be written to {path}: {error.strerror}") from error
    return signer


def load_file(path: Path, name: str, kind: KeyKind = KeyKind.ED25519) -> Signer:
    """Return the key in a file, under ``name``.

    Raises:
        SettingsInvalid: the file cannot be read, others than its owner may read it, or it holds no such key.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise SettingsInvalid(f"the key in {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsInvalid(f"{path} is no file; it must hold {_KIND}")
        if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsInvalid(
                f"{path} may be read or written by others than its owner; no such key is used: "
                f"`chmod 600 {path}` if nobody can have copied it, a new key if somebody can"
            )
        pem = os.read(file, _MOST_BYTES)
    except OSError as error:
        raise SettingsInvalid(f"the key in {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)
    return _load(pem, str(path), name, kind)


def load_pem(
    pem: SecretStr, name: str, kind: KeyKind = KeyKind.ED25519, *, source: str = "RMOS_AUDIT_KEY"
) -> Signer:
    """Return the key in a text, under ``name``; ``source`` is where the text came from, for errors.

    Raises:
        SettingsInvalid: it is no such key.
    """
    return _load(pem.get_secret_value().encode("utf-8", "replace"), source, name, kind)


def read_public(path: Path) -> tuple[list[str], bool]:
    """Return the lines of a file of public keys, and whether nobody but its owner may write it.

    Raises:
        SettingsInvalid: it cannot be read, or is larger than such a file is.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(file)
            data = os.read(file, _MOST_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
        finally:
            os.close(file)
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror}") from error
    if data is None or len(data) > _MOST_BYTES:
        raise SettingsInvalid(f"{path} is no file of public keys")
    return data.decode("utf-8", "replace").split(), not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def write_public(path: Path, vkeys: Sequence[str]) -> None:
    """Put a file of public keys, one on each line, in the place of what is there; one of the two stays whole.

    Raises:
        SettingsInvalid: it cannot be written, and what was there stands.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        _write(draft, "".join(f"{vkey}\n" for vkey in vkeys).encode(), _PUBLIC_MODE)
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be written: {error.strerror}") from error


def _load(pem: bytes, source: str, name: str, kind: KeyKind) -> Signer:
    problem = "what it holds is no key in PEM"
    key = None
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        problem = "the key is encrypted; keys with a password are not read"
    except (ValueError, UnsupportedAlgorithm):
        # The library's own text may quote what it could not read.
        if b"PUBLIC KEY-----" in pem:
            problem = "it holds a public key"
    if key is not None and not isinstance(key, Ed25519PrivateKey):
        problem = f"it holds a key of another kind ({_kind_of(key)})"
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsInvalid(f"{source}: {problem}; give {_KIND}")
    return Signer(name, key, kind)


def _kind_of(key: object) -> str:
    return type(key).__name__.removesuffix("PrivateKey").lstrip("_") or "unknown"


def _write(path: Path, data: bytes, mode: int) -> None:
    # The mode at once, so that it is never readable by others; fchmod, because the umask may take from it.
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(file, mode)
        os.write(file, data)
        os.fsync(file)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(file)
    _sync(path.parent)


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
