"""The proof that an entry is in the log, to be verified without the store (C2SP ``tlog-proof``)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import Entry, EntryInvalid, RecordEntry, parse_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from rmos_shared.auditlog.note import Note, NoteInvalid, Signed, Verifier, verified
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import DamageFound

#: What the names of files with proofs end with.
SUFFIX = ".tlog-proof"

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA, _INDEX = "extra ", "index "
#: Lines of it between header and path.
_FIELDS = 2
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
#: The way up in the largest tree that a number of 64 bits counts.
_MOST_HASHES = 64


class ProofInvalid(DamageFound):
    """A proof is malformed, or does not prove what it should."""

    code = "PROOF_INVALID"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """An entry, its place in the log, and why it is there."""

    #: The entry's bytes; they are the leaf, so the proof stands or falls with them.
    entry: bytes
    index: int
    #: From the leaf's sibling upwards.
    hashes: tuple[bytes, ...]
    #: The checkpoint, with the signatures of the log and, it may be, of witnesses.
    note: Note

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the proof in these bytes; nothing of it is proven yet.

        Raises:
            ProofInvalid: they are none, or one without the entry.
        """
        above, blank, below = data.partition(b"\n\n")
        try:
            header, *lines = above.decode("ascii").split("\n")
            _, note = Checkpoint.parse_note(below)
        except UnicodeDecodeError:
            raise ProofInvalid("the proof is not text") from None
        except NoteInvalid as error:
            raise ProofInvalid(f"the checkpoint of the proof: {error}") from None
        if not blank or header != _HEADER:
            raise ProofInvalid(
                f"it does not begin as a proof does, with {_HEADER}, and end with a checkpoint"
            )
        if len(lines) < _FIELDS or not lines[0].startswith(_EXTRA):
            raise ProofInvalid("its second line must hold the entry, as extra data")
        number = lines[1].removeprefix(_INDEX)
        if number == lines[1] or not _NUMBER.fullmatch(number):
            raise ProofInvalid("its third line must tell the index of the entry")
        hashes = tuple(map(_decode, lines[_FIELDS : _FIELDS + _MOST_HASHES + 1]))
        if len(hashes) > _MOST_HASHES or any(len(value) != HASH_BYTES for value in hashes):
            raise ProofInvalid("a line of the path is no hash, or there are too many")
        return cls(_decode(lines[0].removeprefix(_EXTRA)), int(number), hashes, note)

    def to_bytes(self) -> bytes:
        """Return the proof as it is stored."""
        lines = [
            _HEADER,
            f"{_EXTRA}{_encode(self.entry)}",
            f"{_INDEX}{self.index}",
            *map(_encode, self.hashes),
        ]
        return "\n".join([*lines, "", ""]).encode() + self.note.to_bytes()


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof has shown."""

    entry: Entry
    checkpoint: Checkpoint
    signatures: list[Signed]


def prove(log: AuditLog, index: int, size: int | None = None) -> InclusionProof:
    """Return the proof that entry ``index`` is in a tree that has a checkpoint; in the newest if omitted.

    Raises as ``AuditLog``.
    """
    size = log.newest_size() if size is None else size
    _, note = log.note(size)
    (entry,) = log.entries(index, index + 1, size=size)
    return InclusionProof(entry, index, tuple(log.hash_reader(size).inclusion_proof(index)), note)


def check(proof: InclusionProof, data: bytes | None, verifiers: Iterable[Verifier]) -> Proven:
    """Return what ``proof`` shows of the file ``data`` (None: of no file): it is in the log of a trusted key.

    Raises:
        ProofInvalid: it shows nothing of the kind; the text says why.
    """
    try:
        checkpoint = Checkpoint.parse(proof.note.text)
        signatures = verified(proof.note, verifiers)
        entry = parse_entry(proof.entry)
    except (NoteInvalid, EntryInvalid) as error:
        raise ProofInvalid(str(error)) from None
    if not any(signed.name == checkpoint.origin for signed in signatures):
        raise ProofInvalid("no signature is of the log's own key")
    leaf = leaf_hash(proof.entry)
    if not verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root):
        raise ProofInvalid(f"the entry is not at {proof.index} in the tree of {checkpoint.size} entries")
    if data is not None and not (
        isinstance(entry, RecordEntry) and (entry.size, entry.sha256) == (len(data), sha256_hex(data))
    ):
        raise ProofInvalid("the file is not the one that the entry tells of")
    return Proven(entry, checkpoint, signatures)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or _encode(data) != text:
        raise ProofInvalid("a line is not the base64 that it should be")
    return data
