"""A checkpoint: the size and the root of a log's tree, as the text of a note (C2SP ``tlog-checkpoint``)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Self

from rmos_shared.auditlog.merkle import HASH_BYTES
from rmos_shared.auditlog.note import Note, NoteInvalid

#: What the origin of every log of ours begins with; the store's identity follows.
ORIGIN = "rmos-runs/"

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LINES = 3


def origin_of(store_id: str) -> str:
    """Return the origin of the log of a store: the first line of its checkpoints, and its key's name."""
    return f"{ORIGIN}{store_id}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log of ``origin`` holds: ``size`` entries, whose tree has this root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the checkpoint that a note's text is. Ours have no extension lines, and none is read.

        Raises:
            NoteInvalid: it is none.
        """
        lines = text.split("\n")
        if len(lines) != _LINES + 1 or lines[-1] or not lines[0]:
            raise NoteInvalid("a checkpoint has three lines: origin, size and root")
        origin, size, encoded = lines[:_LINES]
        if not _SIZE.fullmatch(size):
            raise NoteInvalid("the second line of the checkpoint is no size")
        try:
            root = base64.b64decode(encoded, validate=True)
        except ValueError:
            root = b""
        if len(root) != HASH_BYTES or base64.b64encode(root).decode() != encoded:
            raise NoteInvalid("the third line of the checkpoint is no root hash")
        return cls(origin, int(size), root)

    @classmethod
    def parse_note(cls, data: bytes) -> tuple[Self, Note]:
        """Return the checkpoint in a stored note, and the note, not proven; raises as ``parse``."""
        note = Note.parse(data)
        return cls.parse(note.text), note

    @property
    def text(self) -> str:
        """The text of the note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
