"""Which runs name an attachment, and which attachments no run names: read from the artifacts themselves.

Memory holds the names of one partition; what it takes to find the unreferenced ones lies in a temporary file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from rmos_shared.errors import CorruptArtifact
from rmos_shared.runs.attachments import Attachments, named_by
from rmos_shared.runs.reader import RunEntry
from rmos_shared.store.base import Head


@dataclass(frozen=True, slots=True)
class AttachmentEntry:
    """One attachment: its size and time, or what is wrong with the file."""

    key: str
    head: Head | None
    error: CorruptArtifact | None


def naming(key: str, runs: Iterable[RunEntry]) -> Iterator[RunEntry]:
    """Yield those of ``runs`` that name the attachment, and those that cannot be read, for they may."""
    for entry in runs:
        if entry.artifact is None or key in named_by(entry.artifact):
            yield entry


def every_attachment(attachments: Attachments) -> Iterator[AttachmentEntry]:
    """Yield all attachments, in order of their keys; the content is not read."""
    return (_entry(attachments, key) for key in attachments.list())


def unreferenced(attachments: Attachments, runs: Iterable[RunEntry]) -> Iterator[AttachmentEntry | RunEntry]:
    """Yield the attachments that none of ``runs`` names, after the runs that cannot be read, for they may.

    Give it all runs of the store. One that was uploaded a moment ago may be named by a run that is still on
    its way: its time tells. Nothing is changed.
    """
    # An empty name is a file that SQLite makes and removes by itself.
    with closing(sqlite3.connect("", isolation_level=None)) as left:
        left.execute("BEGIN")
        left.execute("CREATE TABLE attachment (key TEXT PRIMARY KEY) WITHOUT ROWID")
        # Before the runs are read: one that comes meanwhile is not taken for one that no run names.
        left.executemany("INSERT INTO attachment VALUES (?)", ((key,) for key in attachments.list()))
        for entry in runs:
            if entry.artifact is None:
                yield entry
            else:
                keys = [(key,) for key in named_by(entry.artifact)]
                left.executemany("DELETE FROM attachment WHERE key = ?", keys)
        for (key,) in left.execute("SELECT key FROM attachment ORDER BY key"):
            yield _entry(attachments, key)


def _entry(attachments: Attachments, key: str) -> AttachmentEntry:
    try:
        return AttachmentEntry(key, attachments.head(key), None)
    except CorruptArtifact as error:
        return AttachmentEntry(key, None, error)
