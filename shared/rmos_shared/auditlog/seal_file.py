"""The file that decides what the log holds next: a signed note, whose text are a heading and the entries.

The heading names the log and the first entry's index, so that a seal stands for no other place. The signature
says who decided: without it a sealer would finish, and so vouch for, whatever somebody put there who can
merely write to the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rmos_shared.auditlog.entry import Entry, EntryInvalid, RecordEntry, SealEntry, parse_entry
from rmos_shared.auditlog.layout import seal_key
from rmos_shared.auditlog.note import Note, NoteInvalid, Signer, verified
from rmos_shared.errors import CorruptArtifact

#: Larger ones are refused unread: ten times what the most entries with the longest keys take.
MOST_SEAL_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class SealFile:
    """What a seal adds to a log at one place; its signature is not proven yet."""

    key: str
    #: Its entries, of which the last ends it.
    lines: tuple[bytes, ...]
    seal: SealEntry
    note: Note

    @classmethod
    def made(
        cls, origin: str, start: int, lines: Sequence[bytes], seal: SealEntry, signer: Signer | None
    ) -> Self:
        """Return the seal of these entries, of which the first has the index ``start``."""
        text = _heading(origin, start) + "".join(f"{line.decode()}\n" for line in lines)
        note = Note(text)
        if signer is not None:
            note = note.signed(signer.sign(text))
        return cls(seal_key(start), tuple(lines), seal, note)

    @classmethod
    def parse(cls, origin: str, start: int, data: bytes) -> Self:
        """Return the seal that these bytes are.

        Raises:
            CorruptArtifact: they are none, or one of another log or place.
        """
        key = seal_key(start)
        try:
            note = Note.parse(data, most_bytes=MOST_SEAL_BYTES)
        except NoteInvalid as error:
            raise CorruptArtifact(key, f"this seal of the audit log cannot be read: {error}") from None
        heading = _heading(origin, start)
        if not note.text.startswith(heading):
            raise CorruptArtifact(key, f"it is no seal of {origin} from entry {start} on")
        lines = note.text[len(heading) :].encode().split(b"\n")[:-1]
        if not lines:
            raise CorruptArtifact(key, "this seal of the audit log is empty")
        *records, last = [_parsed(line, key, number) for number, line in enumerate(lines, 1)]
        if not isinstance(last, SealEntry) or last.seal.entries != len(lines):
            raise CorruptArtifact(key, f"its last line does not end a seal of {len(lines)} entries")
        if not all(isinstance(record, RecordEntry) for record in records):
            raise CorruptArtifact(key, "it holds the end of another seal")
        return cls(key, tuple(lines), last, note)

    def to_bytes(self) -> bytes:
        """Return the seal as it is stored."""
        return self.note.to_bytes()

    def check(self, signer: Signer | None) -> None:
        """Prove that it was begun as ``signer`` would: with this key, or with none.

        Raises:
            CorruptArtifact: it was not.
        """
        if signer is None:
            if not self.note.signatures:
                return
            begun = "with a key, and none is named here"
        else:
            try:
                proven = verified(self.note, [signer.verifier])
            except NoteInvalid as error:
                begun = f"without the key in use ({error})"
            else:
                if len(proven) == len(self.note.signatures) == 1:
                    return
                begun = "by one key, and bears other signatures"
        raise CorruptArtifact(
            self.key,
            f"this seal was begun {begun}, so it is not finished. Were the keys changed just now? Then "
            "`rmos audit seal` with the setting of before finishes it. Otherwise somebody planted it: keep a "
            "copy, and move it away",
        )


def _heading(origin: str, start: int) -> str:
    # No checkpoint and no introduction of a key begins so, which the same key signs.
    return f"rmos-runs seal\n{origin}\n{start}\n"


def _parsed(line: bytes, key: str, number: int) -> Entry:
    try:
        return parse_entry(line)
    except EntryInvalid as error:
        raise CorruptArtifact(key, f"entry {number} of it is {error}") from None
