"""The records of an older system, one by one, as the bytes that they are; nothing is ever written there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from rmos_runs.operations.migration.decoding import shown
from rmos_runs.operations.migration.json_stream import JsonStream
from rmos_runs.operations.migration.scratch import Scratch
from rmos_shared.errors import SourceInvalid
from rmos_shared.runs.layout import partition_day

#: A larger record is reported and passed over: one must fit into memory, several times.
MOST_RECORD_BYTES = 67_108_864
_LINK = b"_advisory_"
_SUFFIX = b".json"
# O_NONBLOCK: opening a FIFO must not wait for its writer.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class SourceKind(StrEnum):
    """How the records of a source lie."""

    #: ``{YYYY-MM-DD}/{run_id}.json`` with link files beside them.
    PARTITIONED = "partitioned"
    #: ``{run_id}.json`` in one directory.
    FLAT = "flat"
    #: One JSON document, an object by id or a list.
    FILE = "file"


@dataclass(frozen=True, slots=True)
class RawLink:
    """A link file beside a run, as it lies in the source."""

    place: str
    #: The advisory's id as the file's name gives it.
    named: str
    data: bytes | None
    #: Why there is no data.
    reason: str | None


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A run, as it lies in the source; or a place where one should be, and why there is none."""

    #: Where it lies below the source, fit to be printed.
    place: str
    #: The run's id as the file's name, or the key in the document, gives it.
    named: str | None
    data: bytes | None
    #: Why there is no data.
    reason: str | None
    links: tuple[RawLink, ...] = ()


@dataclass(frozen=True, slots=True)
class Stray:
    """A link file whose run is not in the source."""

    place: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What a source holds, by names alone."""

    runs: int
    links: int
    #: Files and directories that are no record by their name, such as ``_index.json``.
    ignored: int


class Source(Protocol):
    """Where old records are read from."""

    kind: SourceKind

    def contents(self) -> Contents:
        """Count what is there."""
        ...

    @property
    def total(self) -> int:
        """How far ``done`` will go."""
        ...

    @property
    def done(self) -> int:
        """How much of the source is behind us: files, or bytes of the one file."""
        ...

    def records(self) -> Iterator[RawRecord | Stray]:
        """Yield every record, always in the same order; what cannot be read is yielded with its reason."""
        ...


def source_of(path: Path, kind: SourceKind | None, scratch: Scratch) -> Source:
    """Return the source at ``path``, of the kind that it is or is said to be.

    Raises:
        SourceInvalid: it is not there, cannot be read, or is not of that kind, or of two at once.
    """
    try:
        mode = path.stat().st_mode
        found = _kind(path) if stat.S_ISDIR(mode) else SourceKind.FILE
    except OSError as error:
        raise SourceInvalid(f"the source cannot be read: {error.strerror}") from error
    if found is SourceKind.FILE:
        if not stat.S_ISREG(mode):
            raise SourceInvalid("the source is neither a directory nor a regular file")
        if kind not in {None, found}:
            raise SourceInvalid(f"the source is a file, not a directory of kind {kind}")
        return FileSource(path)
    if kind is SourceKind.FILE:
        raise SourceInvalid("the source is a directory; name the file itself")
    if kind is None and found is None:
        raise SourceInvalid("the source holds both day directories and records beside them; say --from")
    return DirectorySource(path, kind or found or SourceKind.FLAT, scratch)


def check_apart(source: Path, runs_dir: Path) -> None:
    """Refuse a source that is, holds or lies in the store that is written.

    Raises:
        SourceInvalid: it is one of these.
    """
    old, new = source.resolve(), runs_dir.resolve()
    if old == new or old in new.parents or new in old.parents:
        raise SourceInvalid("the source and the store overlap; migrate into a store of its own")


def _kind(path: Path) -> SourceKind | None:
    """Return the kind of a directory; None when it is of two kinds."""
    days = records = False
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                days = days or partition_day(entry.name) is not None
            else:
                records = records or (entry.name.endswith(".json") and not entry.name.startswith("_"))
            if days and records:
                return None
    return SourceKind.PARTITIONED if days else SourceKind.FLAT


class DirectorySource:
    """Files in one directory, or in the directories of one."""

    def __init__(self, root: Path, kind: SourceKind, scratch: Scratch) -> None:
        """Read ``root``; names go through ``scratch``, so that no directory needs memory."""
        self.kind = kind
        self._root = os.fsencode(root)
        self._scratch = scratch
        self._contents: Contents | None = None
        self._unlisted: list[RawRecord] = []
        self._done = 0
        self._ignored = 0

    @property
    def total(self) -> int:
        """How many files are records or links."""
        contents = self.contents()
        return contents.runs + contents.links

    @property
    def done(self) -> int:
        """How many of them are behind us."""
        return self._done

    def contents(self) -> Contents:
        """List the names, once.

        Raises:
            SourceInvalid: the source itself cannot be listed.
        """
        if self._contents is None:
            try:
                self._contents = self._list()
            except OSError as error:
                raise SourceInvalid(f"the source cannot be listed: {error.strerror}") from error
        return self._contents

    def run_names(self) -> Iterator[str]:
        """Yield the ids that the names of the run files give."""
        self.contents()
        for branch in self._scratch.branches():
            for name in self._scratch.names(branch):
                if _LINK not in name:
                    yield _text(name.removesuffix(_SUFFIX))

    def records(self) -> Iterator[RawRecord | Stray]:
        """Yield the runs, each with its links, by directory and name; then links of which no run is there."""
        self.contents()
        yield from self._unlisted
        for branch in self._scratch.branches():
            for name in self._scratch.names(branch):
                if _LINK not in name:
                    yield self._record(branch, name)
            for name in self._scratch.names(branch):
                if _LINK in name:
                    self._done += 1
                    yield Stray(_place(branch, name))

    def _record(self, branch: bytes, name: bytes) -> RawRecord:
        stem = name.removesuffix(_SUFFIX)
        links = [
            self._link(branch, link, link[len(prefix) :].removesuffix(_SUFFIX))
            for prefix in self._link_prefixes(branch, stem)
            for link in self._take_links(branch, prefix)
        ]
        data, reason = self._read(branch, name)
        self._done += 1 + len(links)
        return RawRecord(_place(branch, name), _text(stem), data, reason, tuple(links))

    def _link_prefixes(self, branch: bytes, stem: bytes) -> Iterator[bytes]:
        yield stem + _LINK
        # The predecessor writes a second form with "run_" before the id, which mostly begins so itself. Where
        # that is another run's id, the links are that run's.
        if not self._scratch.has_name(branch, b"run_" + stem + _SUFFIX):
            yield b"run_" + stem + _LINK

    def _take_links(self, branch: bytes, prefix: bytes) -> Iterator[bytes]:
        for name in self._scratch.names_with(branch, prefix):
            # Names of the run "a" and of the run "a_advisory" may begin alike: the longer one has it.
            at = len(prefix) - len(_LINK)
            while (at := name.find(_LINK, at + 1)) >= 0:
                if self._scratch.has_name(branch, name[:at] + _SUFFIX):
                    break
            else:
                self._scratch.forget_name(branch, name)
                yield name

    def _link(self, branch: bytes, name: bytes, named: bytes) -> RawLink:
        data, reason = self._read(branch, name)
        return RawLink(_place(branch, name), _text(named), data, reason)

    def _read(self, branch: bytes, name: bytes) -> tuple[bytes | None, str | None]:
        try:
            return _read(os.path.join(self._root, branch, name))  # noqa: PTH118 - names of bytes
        except OSError as error:
            return None, f"cannot be read: {error.strerror}"

    # -- names ----------------------------------------------------------------------------------------

    def _list(self) -> Contents:
        runs = links = 0
        for branch in self._branches():
            try:
                with os.scandir(os.path.join(self._root, branch)) as entries:  # noqa: PTH118 - as above
                    for entry in entries:
                        if entry.name.startswith(b"_") or not entry.name.endswith(_SUFFIX):
                            self._ignored += 1
                            continue
                        self._scratch.add_name(branch, entry.name)
                        links += _LINK in entry.name
                        runs += _LINK not in entry.name
            except OSError as error:
                reason = f"cannot be listed: {error.strerror}"
                self._unlisted.append(RawRecord(_place(branch, b""), None, None, reason))
        return Contents(runs, links, self._ignored)

    def _branches(self) -> Iterator[bytes]:
        if self.kind is SourceKind.FLAT:
            yield b""
            return
        branches = []
        with os.scandir(self._root) as entries:
            for entry in entries:
                # The predecessor, too, takes every directory for a partition whose name begins with no "_".
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(b"_"):
                    branches.append(entry.name)
                else:
                    self._ignored += 1
        yield from sorted(branches)


class FileSource:
    """One document with all records."""

    kind = SourceKind.FILE

    def __init__(self, path: Path) -> None:
        """Read ``path``."""
        self._path = path
        self._place = shown(_text(os.fsencode(path.name)))
        self.total = path.stat().st_size
        self.done = 0

    def contents(self) -> Contents:
        """Read it once, and count its values."""
        return Contents(sum(1 for _ in self.records()), 0, 0)

    def records(self) -> Iterator[RawRecord | Stray]:
        """Yield the values at the top level."""
        try:
            with self._path.open("rb", buffering=0) as file:
                stream = JsonStream(file.read, most_bytes=MOST_RECORD_BYTES)
                for span in stream.spans():
                    self.done = stream.offset
                    place = span.number if span.key is None else shown(span.key)
                    yield RawRecord(f"{self._place}#{place}", span.key, span.data, span.reason)
            self.done = self.total
        except OSError as error:
            yield RawRecord(self._place, None, None, f"cannot be read: {error.strerror}")


def _read(path: bytes) -> tuple[bytes | None, str | None]:
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        if os.path.islink(path):  # noqa: PTH114 - a path of bytes
            return None, "is a symbolic link, which is not followed"
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None, "is no regular file"
        if status.st_size > MOST_RECORD_BYTES:
            return None, f"larger than {MOST_RECORD_BYTES} bytes"
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(), None
    finally:
        os.close(descriptor)


def _text(name: bytes) -> str:
    # A foreign name may be no UTF-8; no id looks like what it becomes.
    return name.decode("utf-8", "backslashreplace")


def _place(branch: bytes, name: bytes) -> str:
    return "/".join(shown(_text(part)) for part in (branch, name) if part)
