"""Signed notes (C2SP ``signed-note``), and the cosignatures of witnesses (C2SP ``tlog-cosignature``)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rmos_shared.errors import DamageFound

#: Larger notes are refused unread, and so are more signatures; seals are notes too, and larger.
MOST_NOTE_BYTES = 1 << 16
MOST_SIGNATURES = 100

_ID_BYTES = 4
_KEY_BYTES = 32
_TIME_BYTES = 8
_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")


class NoteInvalid(DamageFound):
    """Not a signed note, or not signed by a key that is trusted."""

    code = "NOTE_INVALID"


class KeyKind(IntEnum):
    """What a key signs, by the byte that the specification assigned to it."""

    #: The text of a note.
    ED25519 = 0x01
    #: A checkpoint, and when it was seen, by a witness.
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note."""

    name: str
    key_id: bytes
    #: As the kind of key has it: 64 bytes; of a witness 8 more before them, the time.
    data: bytes

    def __str__(self) -> str:
        """Return the line, without its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and its signatures; none is proven yet."""

    text: str
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, most_bytes: int = MOST_NOTE_BYTES) -> Self:
        """Return the note that these bytes are, also one without signatures: a log without a key has such.

        Raises:
            NoteInvalid: they are none.
        """
        if len(data) > most_bytes:
            raise NoteInvalid(f"a note of more than {most_bytes} bytes is not read")
        try:
            whole = data.decode()
        except UnicodeDecodeError:
            raise NoteInvalid("the note is not UTF-8") from None
        if _CONTROL.search(whole):
            raise NoteInvalid("the note holds a control character")
        text, blank, below = whole.rpartition("\n\n")
        if not blank or not text:
            raise NoteInvalid("the note has no blank line between text and signatures")
        if below and not below.endswith("\n"):
            raise NoteInvalid("the last line of the note has no end")
        lines = below.split("\n")[:-1]
        if len(lines) > MOST_SIGNATURES:
            raise NoteInvalid(f"the note has more than {MOST_SIGNATURES} signatures")
        return cls(f"{text}\n", tuple(map(_parse_signature, lines)))

    def to_bytes(self) -> bytes:
        """Return the note as it is stored."""
        return "".join([self.text, "\n", *(f"{signature}\n" for signature in self.signatures)]).encode()

    def signed(self, signature: Signature) -> Note:
        """Return the note with one more signature."""
        return Note(self.text, (*self.signatures, signature))


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds."""

    vkey: str
    name: str
    #: When a witness saw the checkpoint; None for a signature without a time.
    at: datetime | None = None


class Verifier:
    """A public key, as a *vkey* names it: ``name+key id+base64(kind, key)``."""

    def __init__(self, name: str, kind: KeyKind, key: bytes) -> None:
        """Trust the 32 bytes of an Ed25519 public key under this name.

        Raises:
            NoteInvalid: no key has this name, or these bytes.
        """
        check_name(name)
        if len(key) != _KEY_BYTES:
            raise NoteInvalid(f"an Ed25519 public key has {_KEY_BYTES} bytes, not {len(key)}")
        self.name = name
        self.kind = kind
        self.key_id = key_id(name, kind, key)
        self.vkey = f"{name}+{self.key_id.hex()}+{base64.b64encode(bytes([kind]) + key).decode()}"
        self._key = Ed25519PublicKey.from_public_bytes(key)

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Return the key that a vkey names.

        Raises:
            NoteInvalid: it is none, of a kind that is not known here, or its id is not its own.
        """
        match = _VKEY.fullmatch(vkey)
        data = _decode(match[3]) if match else None
        if match is None or not data:
            raise NoteInvalid("a public key looks like name+12345678+base64; one argument for each")
        if data[0] not in set(KeyKind):
            raise NoteInvalid(
                f"the public key of {match[1]} is of kind {data[0]:#04x}; only 0x01 and 0x04 are known"
            )
        verifier = cls(match[1], KeyKind(data[0]), data[1:])
        if verifier.key_id.hex() != match[2]:
            raise NoteInvalid(f"the public key of {match[1]} does not have the id that stands before it")
        return verifier

    def is_of(self, signature: Signature) -> bool:
        """Say whether a signature claims to be of this key."""
        return signature.name == self.name and signature.key_id == self.key_id

    def verify(self, text: str, signature: Signature) -> Signed:
        """Return what the signature proves.

        Raises:
            NoteInvalid: it does not hold.
        """
        at: datetime | None = None
        data, message = signature.data, text.encode()
        if self.kind is KeyKind.COSIGNATURE:
            seconds = int.from_bytes(data[:_TIME_BYTES])
            data, message = data[_TIME_BYTES:], _cosigned(text, seconds)
            try:
                at = datetime.fromtimestamp(seconds, UTC)
            except (ValueError, OverflowError, OSError):
                raise NoteInvalid(f"the cosignature of {self.name} has an impossible time") from None
        try:
            self._key.verify(data, message)
        except InvalidSignature:
            raise NoteInvalid(f"the signature of {self.name} does not hold") from None
        return Signed(self.vkey, self.name, at)


class Signer:
    """A private key and the name it signs under. It tells its public key, and nothing else of itself."""

    def __init__(self, name: str, key: Ed25519PrivateKey, kind: KeyKind = KeyKind.ED25519) -> None:
        """Sign as ``name``.

        Raises:
            NoteInvalid: no key has this name.
        """
        self._key = key
        self.verifier = Verifier(name, kind, key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """What stands in its signature lines."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The public key, for those who verify."""
        return self.verifier.vkey

    def sign(self, text: str, at: datetime | None = None) -> Signature:
        """Return the signature of a note's text; the same for the same text.

        A witness signs the time ``at`` too, to the second; others have none.
        """
        if (at is not None) is not (self.verifier.kind is KeyKind.COSIGNATURE):
            raise ValueError("a witness signs with a time, a log without")
        if at is None:
            data = self._key.sign(text.encode())
        else:
            seconds = int(at.timestamp())
            data = seconds.to_bytes(_TIME_BYTES) + self._key.sign(_cosigned(text, seconds))
        return Signature(self.name, self.verifier.key_id, data)


def verified(note: Note, verifiers: Iterable[Verifier]) -> list[Signed]:
    """Return what the signatures of known keys prove; those of others say nothing.

    Raises:
        NoteInvalid: one of a known key does not hold, or there is none.
    """
    known = list(verifiers)
    proven = [
        verifier.verify(note.text, signature)
        for signature in note.signatures
        for verifier in known
        if verifier.is_of(signature)
    ]
    if not proven:
        raise NoteInvalid("no signature is of a key that is trusted")
    return proven


def key_id(name: str, kind: KeyKind, key: bytes) -> bytes:
    """Return the four bytes by which signatures name their key."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + key).digest()[:_ID_BYTES]


def check_name(name: str) -> str:
    """Return ``name`` unchanged.

    Raises:
        NoteInvalid: it is empty, or holds a space, a plus sign or a control character.
    """
    if not name or "+" in name or any(char.isspace() or ord(char) < 0x20 for char in name):  # noqa: PLR2004 - as specified
        raise NoteInvalid("the name of a key must not be empty, nor hold spaces, '+' or control characters")
    return name


def _cosigned(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    data = _decode(encoded)
    if not line.startswith(_DASH) or not space or data is None or len(data) <= _ID_BYTES:
        raise NoteInvalid("a line below the note is no signature")
    return Signature(check_name(name), data[:_ID_BYTES], data[_ID_BYTES:])


def _decode(text: str) -> bytes | None:
    """Return the bytes of plain base64 in its one spelling; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
