"""Private keys with the name that their owner gave them: ``FILE``, and its public half in ``FILE.pub``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rmos_shared.auditlog.keys import KeyFileExists, generate, load_file
from rmos_shared.auditlog.note import KeyKind, NoteInvalid, Signer, Verifier
from rmos_shared.errors import SettingsInvalid

#: More than any public key needs.
_MOST_BYTES = 4_096
#: Last parts of a path that name a directory whatever lies there: that of the root, and of ``.``, is empty.
_NO_FILES = ("", "..")


def public_file(file: Path) -> Path:
    """Return where the public half of a key lies: one line, the vkey.

    Raises:
        SettingsInvalid: ``file`` can be no file, such as ``/`` or ``.``.
    """
    if file.name in _NO_FILES:
        raise SettingsInvalid(f"{file} is a directory; name a file for the key")
    return file.with_name(f"{file.name}.pub")


def make_key(file: Path, name: str, kind: KeyKind) -> Signer:
    """Make a key: ``file`` for its owner alone, and beside it the public half for everybody.

    Raises:
        KeyFileExists: one of the files is there.
        SettingsInvalid: the directory cannot be written.
        NoteInvalid: no key has this name.
    """
    public = public_file(file)
    if os.path.lexists(public):
        raise KeyFileExists(public)
    signer = generate(file, name, kind)
    try:
        with public.open("x", encoding="utf-8") as stream:
            stream.write(f"{signer.vkey}\n")
    except OSError as error:
        with suppress(OSError):
            file.unlink()
        raise SettingsInvalid(f"no key can be written to {public}: {error.strerror}") from error
    return signer


def named_signer(file: Path, name: str | None, kind: KeyKind) -> Signer:
    """Return the key in ``file`` under ``name``, or under the name that the file beside it gives.

    Raises:
        SettingsInvalid: it cannot be read, or it has no name, or another than this key's.
        NoteInvalid: no key has this name.
    """
    public = public_file(file)
    if name is not None:
        return load_file(file, name, kind)
    try:
        with public.open(encoding="utf-8") as stream:
            verifier = Verifier.parse(stream.read(_MOST_BYTES).strip())
    except (OSError, UnicodeDecodeError, NoteInvalid) as error:
        raise SettingsInvalid(f"{public} does not tell the key's name; give --name") from error
    signer = load_file(file, verifier.name, kind)
    if signer.vkey != verifier.vkey:
        raise SettingsInvalid(
            f"{public} is not the public half of the key in {file}, used as a {_USE[kind]} key"
        )
    return signer


def verifiers_of(word: str) -> list[Verifier]:
    """Return the public key that a word is, or those in the file that it names, one on each line.

    Raises:
        SettingsInvalid: it is neither.
    """
    try:
        return [Verifier.parse(word)]
    except NoteInvalid as error:
        if "+" in word and not Path(word).exists():
            raise SettingsInvalid(f"no public key: {error}") from error
    try:
        with Path(word).open(encoding="utf-8") as stream:
            lines = stream.read(_MOST_BYTES).split()
        return [Verifier.parse(line) for line in lines]
    except (OSError, UnicodeDecodeError, NoteInvalid) as error:
        raise SettingsInvalid(f"{word} is neither a public key nor a file of some: {error}") from error


_USE = {KeyKind.ED25519: "log's", KeyKind.COSIGNATURE: "witness's"}
