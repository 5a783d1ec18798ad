#!/usr/bin/env python3
# ruff: noqa: D102, D103, D107, EXE001, PLR2004 - a stranger reads this file whole
"""Tell, from a copy of a store and a public key, whether records were changed, removed, swapped or added.

    verifier.py verify STORE [--key VKEY|FILE]... [--witness VKEY|FILE]... [--since CHECKPOINT_FILE]
                             [--state FILE] [--live] [--json] [--jobs N]
    verifier.py check PROOF FILE [--key VKEY|FILE]... [--json]

STORE is a directory, or the http(s) address under which its files are served. Nothing is written to it.
Exit codes: 0 clean, 7 something was found, 2 wrong usage, 6 the store cannot be read, 1 an error in here.

This is one file on purpose: Python 3.11 and `cryptography` (for Ed25519) are all it needs. It shares no line
with the program that writes the log, so that a mistake in one cannot hide in the other.

How to read it. The log under `_log/` is a Merkle tree (RFC 6962) whose leaves are lines of JSON; the line of
a record names its key, size and SHA-256. A *seal* holds the lines that were added at a time, the last of them
its own, in a note that the log's key signs; a *checkpoint* is a signed note of the tree's size and root after
that seal. *Bundles* hold the same lines again and *tiles* the hashes of the tree, in the files that C2SP
tlog-tiles lays down. So:

1. `Walk` reads the seals from the first, grows the tree line by line, and holds its root against each
   checkpoint, whose signature `Signatures` judges. What tiles and bundles must hold follows from the lines.
2. Whatever must lie in the store by then is written to a temporary directory, in 64 parts by the hash of its
   key, and so is the name of each file that does lie there. So memory does not grow with the store.
3. `Part` takes one of the parts: it hashes each file that must be there, and looks at each that should not.

Each file is read once, links are never followed, and nothing in the store is believed before it is proven.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

CLEAN, BROKEN, USAGE, AWAY, FOUND, STOPPED = 0, 1, 2, 6, 7, 130

#: What can be found. Each finding names a key, and where in the log it is told.
KINDS = (
    "modified",  # a file does not hold what its entry says
    "missing",  # an entry without its file, or a file of the log that must be there
    "unsealed",  # a record without an entry, of a time after all that the newest seal has
    "extra",  # a file that no entry tells of and that was there before; or of no shape of ours
    "late",  # an entry of a file that was found in the store without a receipt
    "duplicate",  # two entries of one key
    "bad_signature",  # of a known key and wrong; or malformed; or none, after checkpoints were signed
    "unknown_key",  # signed by nobody who is trusted
    "inconsistent",  # the log contradicts itself, or what somebody remembers of it
    "rolled_back",  # somebody remembers a longer log
    "gap",  # no seal by the time at which the one before promised one
    "clock",  # an entry whose time lies outside its seal's bounds; a seal whose times cannot be right
)

#: No finding: a record that is too young to be in the log.
YOUNG = "young"
#: What speaks against the newest checkpoint, so that it is not remembered; and what is missing in the log.
DOUBTS = {"bad_signature", "unknown_key", "inconsistent", "rolled_back"}

#: How long a record may lie there unsealed; how far clocks may differ; how late a seal may be.
GRACE, SLACK, GAP = timedelta(seconds=120), timedelta(seconds=1), timedelta(seconds=60)
DAY = timedelta(days=1)  # as far ahead as a seal may promise the next one
#: What a file may have at most, in bytes. Anything larger is none of that kind, and is not read.
NOTE_BYTES, SEAL_BYTES, BUNDLE_BYTES, TOKEN_BYTES, PROOF_BYTES = 1 << 16, 1 << 26, 1 << 25, 1 << 18, 1 << 20
SEAL_LINES, LINE_BYTES = 1 << 14, (1 << 16) - 1  # of one seal; of one entry
PIECE_BYTES = 1 << 20
LINES_IN_MEMORY = 50_000
MOST_NAMED = 20  # of what is young, without --json
PARTS = 64
WIDTH = 256  # hashes in a full tile, entries in a full bundle
DEPTH = 10  # directories below each other that are looked into
SECONDS, BYTES_A_SECOND, TRIES = 30, 10_000, 3  # of each step over HTTP; of an answer, at least
PROBES = 100  # newest checkpoints for which cosignatures are asked over HTTP

LOG, IDENTITY = "_log", "_store.json"
SEALS, CHECKPOINTS = "_log/seals/", "_log/checkpoints/"
COSIGNATURES, TIMESTAMPS = "_log/cosignatures/", "_log/timestamps/"


class Usage(Exception):
    """The caller asked for what cannot be done."""


class Away(Exception):
    """The store cannot be read at all."""


class Absent(Exception):
    """Nothing lies under this key."""


class Unusable(Exception):
    """Something lies there, but no file that can be read; the text says what."""


class Findings:
    """Everything that was found, in a file: a store may be wrong in a million places."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self.counts: Counter[str] = Counter()
        #: What is no finding: files and bytes read, records that are too young to be in the log, and so on.
        self.seen: Counter[str] = Counter()

    def add(self, kind: str, key: str, detail: str) -> None:
        self.counts[kind] += 1
        # A surrogate in a key is a byte of a name that is no UTF-8.
        told = [kind, key.encode("utf-8", "backslashreplace").decode(), detail]
        self._lines.append(json.dumps(told) + "\n")
        if len(self._lines) == LINES_IN_MEMORY:
            self._write()

    def young(self, key: str, detail: str) -> None:
        """Take note of a record that may be too young to be in the log: no finding, and told beside them."""
        self.add(YOUNG, key, detail)
        self.seen[YOUNG] += self.counts.pop(YOUNG)

    def close(self) -> None:
        self._lines.append(json.dumps({"counts": self.counts, "seen": self.seen}) + "\n")
        self._write()

    def _write(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(self._lines)
        self._lines.clear()


def read_findings(paths: Iterable[Path]) -> Iterator[Any]:
    """Yield each finding as kind, key and detail, and the totals of each process."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def read_told(paths: Sequence[Path], count: int, *, young: bool = False) -> Iterable[list[str]]:
    """Return the findings, or what is young, in order unless there is very much of it."""
    told = (one for one in read_findings(paths) if isinstance(one, list) and (one[0] == YOUNG) == young)
    if count > LINES_IN_MEMORY:
        return told
    return sorted(told, key=lambda one: ((YOUNG, *KINDS).index(one[0]), one))


# --- The tree (RFC 6962) and its files (C2SP tlog-tiles) --------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Return the key of a tile; with the level `entries`, of a bundle."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    return f"_log/tile/{level}/{'/'.join(groups)}" + (f".p/{width}" if width < WIDTH else "")


def grouped(number: int) -> str:
    digits = f"{number:012d}"
    return f"{digits[:-9]}/{digits[-9:-6]}/{digits[-6:-3]}/{digits[-3:]}"


class Edge:
    """A tree that only grows: its right edge is all that is kept of it."""

    def __init__(self) -> None:
        self.size = 0
        #: The roots of the largest complete subtrees, from left to right.
        self.stack: list[bytes] = []
        #: What the last tile of each level holds so far, and the last bundle.
        self.rows: list[list[bytes]] = [[]]
        self.lines: list[bytes] = []
        #: Tiles and bundles that became full: key and content.
        self.full: list[tuple[str, bytes]] = []

    def grown(self, lines: Sequence[bytes]) -> Edge:
        """Return the tree with these entries added."""
        edge = Edge()
        edge.size, edge.stack, edge.lines = self.size, self.stack.copy(), self.lines.copy()
        edge.rows = [row.copy() for row in self.rows]
        for line in lines:
            edge._add(line)
        return edge

    def _add(self, line: bytes) -> None:
        self.lines.append(line)
        if len(self.lines) == WIDTH:
            self.full.append((tile_path("entries", self.size // WIDTH), bundle(self.lines)))
            self.lines.clear()
        node, left, height = hashlib.sha256(b"\x00" + line).digest(), self.size, 0
        self._hash(0, node, left)
        while left & 1:
            node = hashlib.sha256(b"\x01" + self.stack.pop() + node).digest()
            left, height = left >> 1, height + 1
            if not height & 7:  # the root of a full tile is a hash of the level above
                self._hash(height >> 3, node, left)
        self.stack.append(node)
        self.size += 1

    def _hash(self, level: int, node: bytes, number: int) -> None:
        if level == len(self.rows):
            self.rows.append([])
        row = self.rows[level]
        row.append(node)
        if len(row) == WIDTH:
            self.full.append((tile_path(level, number // WIDTH), b"".join(row)))
            row.clear()

    def root(self) -> bytes:
        node = self.stack[-1]
        for left in self.stack[-2::-1]:
            node = node_hash(left, node)
        return node

    def partial(self) -> Iterator[tuple[str, bytes]]:
        """Yield the bundle and the tiles at the edge that are not full: key and content."""
        if self.lines:
            yield tile_path("entries", self.size // WIDTH, len(self.lines)), bundle(self.lines)
        for level, row in enumerate(self.rows):
            if row:
                yield tile_path(level, self.size >> 8 * (level + 1), len(row)), b"".join(row)


def bundle(lines: Iterable[bytes]) -> bytes:
    return b"".join([len(line).to_bytes(2, "big") + line for line in lines])


def unbundled(data: bytes) -> list[bytes]:
    lines: list[bytes] = []
    place = 0
    while place < len(data) and len(lines) <= WIDTH:
        end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        lines.append(data[place + 2 : end])
        place = end
    return lines if place == len(data) else []


def proves(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Say whether `path` leads from a leaf to the root of a tree of `size` (RFC 9162, 2.1.3.2)."""
    number, last, node = index, size - 1, leaf
    for other in path:
        if last == 0:
            return False
        if number & 1 or number == last:
            node = node_hash(other, node)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            node = node_hash(node, other)
        number, last = number >> 1, last >> 1
    return index < size and last == 0 and node == root


# --- Signed notes and keys (C2SP signed-note, tlog-checkpoint, tlog-cosignature) --------------------------

ED25519, COSIGNATURE = 1, 4


@dataclass(frozen=True)
class Vkey:
    """A public key, `name+8 hex digits+base64(type || 32 bytes)`; its label: `name+8 hex digits`."""

    label: str
    public: bytes

    def signed(self, signature: bytes, message: bytes) -> bool:
        # Late, so that the structure of a log can be verified where `cryptography` is missing.
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def vkey(text: str, kind: int) -> Vkey | None:
    """Return the key that `text` is; None if it is none of this kind."""
    name, _, rest = text.strip().partition("+")
    hexed, _, encoded = rest.partition("+")
    raw = unbase64(encoded)
    if raw is None or len(raw) != 33 or raw[0] != kind:
        return None
    key_id = hashlib.sha256(name.encode("utf-8", "replace") + b"\n" + raw).hexdigest()[:8]
    return Vkey(f"{name}+{key_id}", raw[1:]) if name and hexed == key_id else None


def vkeys(words: Iterable[str], kind: int) -> list[Vkey]:
    """Return the keys that the command line names, each as its text or as a file with one on a line."""
    found = []
    for word in words:
        text = word if vkey(word, kind) else local_bytes(word, piped=True).decode("utf-8", "replace")
        keys = [vkey(line, kind) for line in text.splitlines() if line and line[0] != "#"]
        if not keys or None in keys:
            what = "log" if kind == ED25519 else "witness"
            raise Usage(f"{word} holds no public key of a {what}, which looks like name+1a2b3c4d+base64")
        found += [key for key in keys if key]
    return found


def unbase64(text: str) -> bytes | None:
    """Return the bytes; None unless this is the one way to write them."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


@dataclass(frozen=True)
class Checkpoint:
    """A note: which log had which size and root, and who says so: the label of each key, its signature."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes], ...]


_NOTE = re.compile("([^\\x00-\\x1f]+)\n([1-9][0-9]{0,17})\n([A-Za-z0-9+/]{43}=)\n")
_SIGNATURE = re.compile("\N{EM DASH} ([^\\s+]+) ([A-Za-z0-9+/]+=*)\n")


def checkpoint(data: bytes) -> Checkpoint | None:
    """Return the checkpoint that a file holds; None if it is malformed in any way."""
    try:
        text, blank, tail = data.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        return None
    note, signatures = _NOTE.fullmatch(text + "\n"), signature_lines(tail)
    root = unbase64(note[3]) if note else None
    if note is None or root is None or not blank or signatures is None:
        return None
    return Checkpoint(f"{text}\n".encode(), note[1], int(note[2]), root, signatures)


def signature_lines(tail: str) -> tuple[tuple[str, bytes], ...] | None:
    """Return each key's label and signature below a note; None if a line is none, or a key's second."""
    signatures: dict[str, bytes] = {}
    for line in tail.splitlines(keepends=True):
        found = _SIGNATURE.fullmatch(line)
        raw = unbase64(found[2]) if found else None
        if found is None or raw is None or len(raw) < 4 + 64:
            return None
        label = f"{found[1]}+{raw[:4].hex()}"
        if label in signatures:
            return None
        signatures[label] = raw[4:]
    return tuple(signatures.items())


@dataclass(frozen=True)
class SealFile:
    """A note, too: which log gets which entries from which index on; and who says so, if it has a key."""

    text: bytes
    origin: str
    start: int
    lines: list[bytes]
    signatures: tuple[tuple[str, bytes], ...]


_HEADING = re.compile(rb"rmos-runs seal\n([\x21-\x7e]+)\n(0|[1-9][0-9]{0,17})\n")


def seal_file(data: bytes) -> SealFile | None:
    """Return the seal that a file holds; None if it is malformed, whatever its entries say."""
    heading = _HEADING.match(data)
    entries, blank, tail = data[heading.end() if heading else 0 :].partition(b"\n\n")
    # A file of nothing but newlines would make millions of lines.
    if heading is None or not blank or entries.count(b"\n") >= SEAL_LINES or len(tail) > NOTE_BYTES:
        return None
    lines, origin = entries.split(b"\n"), heading[1].decode()
    signatures = signature_lines(tail.decode("utf-8", "replace"))
    if signatures is None or len(signatures) > 1 or max(map(len, lines)) > LINE_BYTES:
        return None
    if any(label.rpartition("+")[0] != origin or len(signed) != 64 for label, signed in signatures):
        return None
    return SealFile(data[: heading.end() + len(entries) + 1], origin, int(heading[2]), lines, signatures)


class Signatures:
    """Who may sign, checkpoint after checkpoint: a key in use names the next one in an entry of the log."""

    def __init__(self, keys: Sequence[Vkey], findings: Findings) -> None:
        self.given = bool(keys)
        self._trusted = {key.label: key for key in keys}
        self._retired: dict[str, str] = {}
        #: Named by an entry, and not in use yet.
        self._next: set[str] = set()
        self._signed = False
        self.unsigned = 0
        self._add = findings.add

    def trusted(self) -> dict[str, Vkey]:
        """Return the keys that may sign now, by label."""
        return self._trusted.copy()

    def judge_seal(self, key: str, seal: SealFile, trusted: dict[str, Vkey], note: Checkpoint | None) -> bool:
        """Say whether a seal is signed by whom it may be, if its checkpoint is; if it has none, the log."""
        signed = bool(note.signatures) if note else self._signed
        label, signature = seal.signatures[0] if seal.signatures else ("", b"")
        if signed and not label:
            wrong = "it is unsigned, and the log is signed: anybody may have planted it"
        elif note and label and not signed:
            wrong = "it is signed, and its checkpoint is not"
        elif not (self.given and signed):
            return True
        elif label not in trusted:
            wrong = f"it is signed by {label}, which was not trusted before it"
        elif not trusted[label].signed(signature, seal.text):
            wrong = f"the signature of {label} does not verify"
        else:
            return True
        self._add("inconsistent", key, wrong)
        return False

    def judge(self, key: str, note: Checkpoint) -> bool:
        """Say whether the note under `key` may be believed; without any public key, whether it is in form."""
        if not note.signatures:
            if self._signed:
                self._add("bad_signature", key, "it is unsigned, and checkpoints before it were signed")
            self.unsigned += 1
            return not self._signed
        self._signed = True
        believed = not self.given
        for label, signature in note.signatures if self.given else ():
            known = self._trusted.get(label)
            if known is None:
                why = self._retired.get(label, "which is not trusted")
                self._add("unknown_key", key, f"it is signed by {label}, {why}")
            elif known.signed(signature, note.text):
                believed = True
                self._use(label, note.size)
            else:
                self._add("bad_signature", key, f"the signature of {label} does not verify")
                return False
        return believed

    def _use(self, label: str, size: int) -> None:
        if label in self._next:
            self._next.discard(label)
            for other in self._trusted.keys() - self._next - {label}:
                del self._trusted[other]
                self._retired[other] = f"which was retired when {label} signed size {size}"

    def introduce(self, text: str) -> bool:
        """Trust a key that an entry under a believed checkpoint names."""
        key = vkey(text, ED25519)
        if key is not None:
            self._trusted[key.label] = key
            self._retired.pop(key.label, None)
            self._next.add(key.label)
        return key is not None


# --- The store: a directory, or files served over HTTP ----------------------------------------------------


class Directory:
    """A store as a directory tree. Every directory is opened from its parent, and no link is followed."""

    lists = True
    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # Opening a FIFO must not wait for its writer.
    _FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

    def __init__(self, path: str) -> None:
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise Away(f"{path} cannot be opened: {error}") from None
        #: The directory that was opened last: the next file often lies in it, too.
        self._path, self._last = "", os.dup(self._root)

    def close(self) -> None:
        os.close(self._last)
        os.close(self._root)

    def _directory(self, path: str) -> int:
        if path != self._path:
            below = os.dup(self._root)
            for part in path.split("/") if path else ():
                above = below
                try:
                    below = os.open(part, self._DIRECTORY, dir_fd=above)
                except FileNotFoundError:
                    raise Absent from None
                except OSError as error:
                    raise Unusable(f"{part} is no directory that can be opened: {error.strerror}") from None
                finally:
                    os.close(above)
            os.close(self._last)
            self._path, self._last = path, below
        return self._last

    def _file(self, key: str) -> tuple[int, int]:
        """Return an open file and its size."""
        path, _, name = key.rpartition("/")
        try:
            file = os.open(name, self._FILE, dir_fd=self._directory(path))
        except FileNotFoundError:
            raise Absent from None
        except OSError as error:
            raise Unusable(f"it cannot be opened: {error.strerror}") from None
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise Unusable("it is no regular file")
        return file, status.st_size

    def read(self, key: str, most: int) -> bytes:
        """Return a file's bytes; raise `Unusable` if it has more than `most`."""
        file, size = self._file(key)
        if size > most:
            os.close(file)
            raise Unusable(f"it has {size} bytes, and may have {most}")
        try:
            with os.fdopen(file, "rb") as stream:
                return stream.read(most)
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror}") from None

    def digest(self, key: str, size: int) -> tuple[int, str]:
        """Return a file's size and SHA-256; none if the size is not `size`, for then nothing is read."""
        file, actual = self._file(key)
        try:
            if actual != size:
                return actual, ""
            data = os.read(file, min(size + 1, PIECE_BYTES))
            hashed, total = hashlib.sha256(data), len(data)
            while total < size and (data := os.read(file, PIECE_BYTES)):
                hashed.update(data)
                total += len(data)
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror}") from None
        finally:
            os.close(file)
        return total, hashed.hexdigest()

    def modified_at(self, key: str) -> float:
        path, _, name = key.rpartition("/")
        try:
            return os.stat(name, dir_fd=self._directory(path), follow_symlinks=False).st_mtime
        except (OSError, Unusable):
            raise Absent from None

    def names(self, path: str) -> list[str]:
        """Return the names in one directory, in order; none if there is no such directory."""
        try:
            return sorted(os.listdir(self._directory(path)))  # noqa: PTH208 - by its descriptor
        except (OSError, Absent, Unusable):
            return []

    def files(self, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
        """Yield each key below a directory, and what is wrong with it: nothing if it is a regular file."""
        prefix, below = f"{path}/" if path else "", []
        try:
            with os.scandir(self._directory(path)) as entries:
                for entry in entries:
                    if not path and (entry.name in {LOG, IDENTITY} or passed_over(entry.name)):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    else:
                        regular = entry.is_file(follow_symlinks=False)
                        yield prefix + entry.name, "" if regular else "it is no regular file"
        except Absent:
            return
        except (OSError, Unusable) as error:
            yield path, f"it cannot be listed, so what lies in it is not known: {error}"
        for name in below:
            if depth == DEPTH:
                yield prefix + name, "it lies deeper than any record of ours, and is not looked into"
            else:
                yield from self.files(prefix + name, depth + 1)


def passed_over(name: str) -> bool:
    """Say whether a name at the root is none of a record: drafts that nobody reads, the file system's own."""
    return name in {"_staging", "lost+found"} or re.fullmatch(r"_store\.[0-9a-f]{16}", name) is not None


class InTime(io.RawIOBase):
    """What comes by a connection until a moment; a socket's own timeout begins anew with each byte."""

    def __init__(self, connection: socket.socket, stream: io.RawIOBase) -> None:
        self._connection, self._stream = connection, stream
        self.until = time.monotonic() + SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"slower than {BYTES_A_SECOND} bytes a second")
        self._connection.settimeout(left)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class Answer(http.client.HTTPResponse):
    """An answer whose head must be there after `SECONDS`, however many parts it comes in."""

    def __init__(self, sock: socket.socket, *rest: Any, **named: Any) -> None:
        super().__init__(sock, *rest, **named)
        self.stream = InTime(sock, self.fp.detach())
        self.fp = io.BufferedReader(self.stream)


class Web:
    """A store whose files are served as they are, over HTTP. Nothing can be listed."""

    lists = False

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            self._connection = made(parts.hostname or "", parts.port, timeout=SECONDS)
        except (ValueError, http.client.HTTPException) as error:
            raise Usage(f"the address of the store is none: {error}") from None
        self._connection.response_class = Answer
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise Usage("the address of a store looks like http(s)://HOST[:PORT]/PATH, and nothing more")
        self._path = parts.path.rstrip("/")

    def close(self) -> None:
        self._connection.close()

    def read(self, key: str, most: int) -> bytes:
        """As of a directory; of a longer answer one byte more than `most` is read."""
        pieces: list[bytes] = []
        if self._fetch(key, most, pieces.append, pieces.clear) > most:
            raise Unusable(f"it has more than the {most} bytes that it may have")
        return b"".join(pieces)

    def digest(self, key: str, size: int) -> tuple[int, str]:
        hashed = [hashlib.sha256()]

        def again() -> None:
            hashed[0] = hashlib.sha256()

        def take(piece: bytes) -> None:
            hashed[0].update(piece)

        return self._fetch(key, size, take, again), hashed[0].hexdigest()

    def _fetch(
        self, key: str, most: int, take: Callable[[bytes], object], again: Callable[[], object]
    ) -> int:
        for attempt in range(TRIES):
            try:
                return self._answer(key, most, take)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                again()
                if attempt == TRIES - 1:
                    raise Away(f"{key} cannot be fetched: {str(error) or type(error).__name__}") from None
                time.sleep(0.5 * (attempt + 1))
        return 0

    def _answer(self, key: str, most: int, take: Callable[[bytes], object]) -> int:
        """Hand on what the server has, up to one byte more than `most`; return how much that was."""
        if self._connection.sock:
            self._connection.sock.settimeout(SECONDS)
        self._connection.request("GET", f"{self._path}/{key}", headers={"Accept-Encoding": "identity"})
        answer: Any = self._connection.getresponse()
        good = answer.status == 200
        # Of what a server says of an error as much as is usual, so that the connection can go on.
        most, total, began = most if good else NOTE_BYTES, 0, time.monotonic()
        while total <= most and (piece := answer.read1(min(most + 1 - total, PIECE_BYTES))):
            total += len(piece)
            if good:
                take(piece)
            answer.stream.until = began + SECONDS + total / BYTES_A_SECOND
        if not answer.isclosed():
            self._connection.close()  # rather than read what else there is
        if answer.status in {404, 410}:
            raise Absent
        if not good:
            raise OSError(f"the server answers {answer.status}")
        return total

    def modified_at(self, key: str) -> float:
        raise Absent(key)

    def names(self, path: str) -> list[str]:
        del path
        return []

    def files(self, path: str) -> Iterator[tuple[str, str]]:
        del path
        return iter(())


Source = Directory | Web


def opened(store: str) -> Source:
    return Web(store) if store.startswith(("http://", "https://")) else Directory(store)


# --- What must be there and what is there, in parts on disk -----------------------------------------------


class Spill:
    """Lines in files, by the hash of the key that each is about.

    In `must`: `r` a record, `R` one that --since leaves unread, `l` a file of the log whose content follows
    from the entries, `c` one that was read already. In `there`: `f` a regular file, `o` anything else.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._paths = [directory / f"{name}.{number}" for number in range(PARTS)]
        self.parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._held = 0

    def add(self, flag: bytes, key: str, rest: bytes = b"") -> None:
        raw = key.encode()
        self.parts[zlib.crc32(raw) % PARTS].append(b"%b %b %b\n" % (flag, raw, rest))
        self._held += 1
        if self._held > LINES_IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        for path, part in zip(self._paths, self.parts, strict=True):
            if part:
                with path.open("ab") as file:
                    file.writelines(part)
                part.clear()
        self._held = 0


def spilled(directory: Path, name: str, number: int) -> Iterator[list[bytes]]:
    """Yield the words of each line of one part."""
    with suppress(FileNotFoundError), (directory / f"{name}.{number}").open("rb") as file:
        yield from map(bytes.split, file)


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", re.ASCII)


def list_files(files: Iterable[tuple[str, str]], there: Spill, findings: Findings) -> None:
    """Write down the name of each file; one that no entry can have is a finding already."""
    for key, problem in files:
        if _NAME.fullmatch(key):
            there.add(b"o" if problem else b"f", key)
        else:
            findings.add("extra", key, problem or "no record of ours has such a name")
    there.flush()


# --- The entries ------------------------------------------------------------------------------------------

_TIME = rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)"
_KEY = rb"(?!_log/|_staging/|_store\.)(?:[A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*"
_RECORD = re.compile(
    rb'^\{"at":"' + _TIME + rb'",(?:"found":"(late|adopted)",)?"key":"(' + _KEY + rb')",'
    rb'"sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,17}),(?:"trusts":"([ !#-\[\]-~]+)",)?"v":1\}$',
    re.MULTILINE,
)
_SEAL = re.compile(
    rb'\{"at":"' + _TIME + rb'","seal":\{"entries":([1-9][0-9]{0,17}),"feed":"[0-9-]*",'
    rb'"next":"' + _TIME + rb'","upto":"' + _TIME + rb'"\},"v":1\}'
)
#: Time, found, key, sha256, size, next key.
Record = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
#: What the key of a record looks like.
_DAY, _ID = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_SHAPE = re.compile(
    rf"(?:{_DAY}|_acts/{_DAY}|_batches/{_DAY}|_(?:reviews|attempts)/{_DAY}/{_ID})/{_ID}\.json"
    r"|_attachments/([0-9a-f]{2})/\1[0-9a-f]{62}(?:\.[a-z0-9]{1,16}){0,2}",
    re.ASCII,
)


def record(line: bytes) -> Record | None:
    """Return the record of an entry; None if it is none, or not written in the one canonical way."""
    found = _RECORD.fullmatch(line)
    return found and (found[1], found[2] or b"", found[3], found[4], found[5], found[6] or b"")


@dataclass(frozen=True)
class Seal:
    """The last entry of a seal: when, how many entries, the next promised for, receipts complete up to."""

    at: datetime
    entries: int
    next: datetime
    upto: datetime


def seal_of(lines: Sequence[bytes]) -> Seal | None:
    """Return what the last line says; None if it is not the last line of a seal with so many."""
    found = _SEAL.fullmatch(lines[-1]) if lines else None
    try:
        seal = found and Seal(instant(found[1]), int(found[2]), instant(found[3]), instant(found[4]))
    except ValueError:
        return None
    return seal if seal and seal.entries == len(lines) else None


def instant(text: bytes) -> datetime:
    """Return a time; raise `ValueError` if there is none such, or none that a log can be of."""
    at = datetime.fromisoformat(text.decode())
    if not 1970 < at.year < 9999:
        raise ValueError(at.year)
    return at


def iso(at: datetime | float) -> str:
    """Return a time as the log writes it, given as such or in seconds since 1970."""
    try:
        moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{at} seconds after 1970"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- The walk along the log -------------------------------------------------------------------------------


class Numbers:
    """The numbers that are the keys under a prefix, in order, each with what follows its digits."""

    def __init__(self, source: Source, prefix: str, tail: str = "") -> None:
        self._source = source
        self._last = re.compile(f"([0-9]{{3}})({tail})", re.ASCII)
        self._found = self._below(prefix.rstrip("/"), "")
        self._head = next(self._found, None)

    def _below(self, path: str, digits: str) -> Iterator[tuple[int, str]]:
        for name in self._source.names(path):
            if len(digits) < 9:
                if re.fullmatch("[0-9]{3}", name, re.ASCII):
                    yield from self._below(f"{path}/{name}", digits + name)
            elif last := self._last.fullmatch(name):
                yield int(digits + last[1]), last[2]

    def until(self, number: float) -> Iterator[tuple[int, str]]:
        """Yield those that are not larger, and were not passed yet."""
        while self._head is not None and self._head[0] <= number:
            head, self._head = self._head, next(self._found, None)
            yield head

    def after(self, number: int) -> float:
        """Return the first that is larger; infinity if none is."""
        for _ in self.until(number):
            pass
        return self._head[0] if self._head else float("inf")


class Walk:
    """From the first seal to the last: grows the tree, and says what must lie in the store."""

    def __init__(self, source: Source, signatures: Signatures, must: Spill, findings: Findings) -> None:
        self._source, self._signatures, self._must, self._findings = source, signatures, must, findings
        self._add = findings.add
        self._edge = Edge()
        self._sizes = Numbers(source, CHECKPOINTS), Numbers(source, SEALS)
        #: Seals and checkpoints at and behind the edge: each is read once. None: it is of no use.
        self._files: dict[str, bytes | None] = {}
        #: The seal that was parsed last, with its bytes.
        self._parsed: tuple[bytes | None, SealFile | None] | None = None
        self._partial: dict[int, str] = {}
        self._trusts: list[tuple[str, str]] = []
        self.origin, self.seals, self.size, self.root = "", 0, 0, b""
        #: Whether a seal may adopt what lay there before the log: until one does not.
        self._adopts = True
        #: The newest seal; the newest checkpoint that is believed, and its file.
        self.seal: Seal | None = None
        self.newest: Checkpoint | None = None
        self.note = b""
        #: Roots that somebody remembers, by size: who, and which. Records before entry `unread` are not read.
        self.remembered: dict[int, list[tuple[str, bytes]]] = {}
        self.unread, self.unsigned = 0, 0

    def steps(self) -> Iterator[tuple[int, bytes]]:
        """Go on from seal to seal; yield the size of the tree and the text that its checkpoint must have."""
        while (end := self._end()) is not None:
            # Who may sign this seal: not whom it introduces itself, but whom its checkpoint retires.
            start, trusted = self._edge.size, self._signatures.trusted()
            note = self._checkpoint(end)
            edge, lines = self._lines(start, end, note.root if note else None)
            if edge is None:
                return
            sealed = self._sealed(start)
            if sealed and sealed.lines == lines and note:
                self._signatures.judge_seal(SEALS + grouped(start), sealed, trusted, note)
            self._edge = edge
            self._entries(start, lines)
            self._settle(end, note)
            yield end, f"{self.origin}\n{end}\n{b64(self.root)}\n".encode()
        self._pending()

    def _fetch(self, key: str, most: int) -> bytes | None:
        if key not in self._files:
            try:
                self._files[key] = self._source.read(key, most)
            except Absent:
                return None
            except Unusable as unusable:
                self._add("inconsistent", key, str(unusable))
                self._files[key] = None
            self._findings.seen["files"] += 1
            self._must.add(b"c", key)
        return self._files[key]

    def _sealed(self, start: int) -> SealFile | None:
        """Return the seal of the entries from `start` on; None if there is none, or none of this place."""
        data = self._fetch(SEALS + grouped(start), SEAL_BYTES)
        if self._parsed is None or self._parsed[0] is not data:
            self._parsed = data, seal_file(data or b"")
        seal = self._parsed[1]
        return seal if seal and (seal.origin, seal.start) == (self.origin or seal.origin, start) else None

    def _end(self) -> int | None:
        """Return where the next step ends: where the seal does, if something else says so; or None."""
        start = self._edge.size
        sealed = self._sealed(start)
        end = start + len(sealed.lines if sealed else ())
        for key, most in ((CHECKPOINTS + grouped(end), NOTE_BYTES), (SEALS + grouped(end), SEAL_BYTES)):
            if sealed and (self._fetch(key, most) is not None or key in self._files):
                return end
        later = min(numbers.after(start) for numbers in self._sizes)
        return None if later == float("inf") else int(later)

    def _checkpoint(self, size: int) -> Checkpoint | None:
        """Return the checkpoint of a size if it can be believed."""
        key = CHECKPOINTS + grouped(size)
        data = self._fetch(key, NOTE_BYTES)
        if data is None:
            if key not in self._files:
                self._add("missing", key, f"the log goes on behind size {size}, so it was there")
            return None
        note = checkpoint(data)
        if note is None:
            self._add("bad_signature", key, "it is malformed: no signed note of a checkpoint")
        elif self._signatures.judge(key, note):
            self.origin = self.origin or note.origin
            if (note.origin, note.size) == (self.origin, size):
                return note
            what = f"it is of size {note.size} of {note.origin}, not of size {size} of {self.origin}"
            self._add("inconsistent", key, what)
        return None

    def _lines(self, start: int, end: int, root: bytes | None) -> tuple[Edge | None, list[bytes]]:
        """Return the tree with the entries that lead to the root, and them: the seal's or the bundles'.

        If neither do, the seal's; if there are none at all, no tree.
        """
        key, place = SEALS + grouped(start), f"entries {start} to {end - 1}"
        seal = self._sealed(start)
        sealed = seal.lines if seal else []
        edge = self._edge.grown(sealed) if len(sealed) == end - start else None
        if edge and (root is None or edge.root() == root):
            return edge, sealed
        if key not in self._files:
            self._add("missing", key, f"{place} were sealed in it")
        bundled = self._bundled(start, end)
        other = self._edge.grown(bundled) if len(bundled) == end - start else None
        if other and (root is None or other.root() == root):
            if self._files.get(key) is not None:
                what = "does not hold" if seal else "is malformed, or of another place, and does not hold"
                self._add("inconsistent", key, f"it {what} {place} as they are in the tree")
            return other, bundled
        if root is not None:
            self._add("inconsistent", CHECKPOINTS + grouped(end), f"its root is not that of {place}")
        elif not edge and self._files.get(key) is not None:
            self._add("inconsistent", key, f"it does not hold {place}")
        return (edge, sealed) if edge else (other, bundled)

    def _bundled(self, start: int, end: int) -> list[bytes]:
        """Return entries from the bundles: as they were at the end, or as they are now that they are full."""
        lines: list[bytes] = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            found: list[bytes] = []
            for width in (min(WIDTH, end - number * WIDTH), WIDTH):
                with suppress(Absent, Unusable):
                    found = found or unbundled(
                        self._source.read(tile_path("entries", number, width), BUNDLE_BYTES)
                    )
            if not found:
                break  # a number in a name may be anything
            lines += found
        return lines[start % WIDTH :][: end - start]

    def _entries(self, start: int, lines: list[bytes]) -> None:
        key, seal = SEALS + grouped(start), seal_of(lines)
        if seal is None:
            self._add("inconsistent", key, "its last line is not that of a seal with so many entries")
        elif self.seal:
            if seal.at < self.seal.at - SLACK:
                self._add("clock", key, f"it is of {iso(seal.at)}, the one before of {iso(self.seal.at)}")
            if seal.upto < self.seal.upto:
                told = f"it speaks for {iso(seal.upto)}, and the one before for {iso(self.seal.upto)} already"
                self._add("clock", key, f"{told}; records of the next seal may be back-dated")
            if seal.at > self.seal.next + GAP:
                promised = f"it is of {iso(seal.at)}, and was promised for {iso(self.seal.next)}"
                self._add("gap", key, f"{promised}; nothing of the time between is proven")
        if seal and seal.upto > seal.at + SLACK:
            self._add("clock", key, f"it is of {iso(seal.at)}, and speaks for {iso(seal.upto)}")
        if seal and seal.at > datetime.now(UTC) + GRACE:
            self._add("clock", key, f"it is of {iso(seal.at)}, which is yet to come")
        if seal and seal.next > seal.at + DAY + SLACK:
            promise = f"it is of {iso(seal.at)}, and promises the next for {iso(seal.next)}"
            self._add("clock", key, f"{promise}; until then nobody could tell that the end was cut off")
        text = b"\n".join(lines)
        found: list[Record | None] = [*_RECORD.findall(text)]
        # A line of a bundle might hold a newline.
        if not len(found) == len(lines) - 1 == text.count(b"\n"):
            found = [record(line) for line in lines[:-1]]
        adopted = self._findings.seen["adopted"]
        self._records(start, found, seal)
        self._adopts = self._adopts and self._findings.seen["adopted"] > adopted
        self.seal = seal or self.seal

    def _records(self, start: int, records: Sequence[Record | None], seal: Seal | None) -> None:
        lowest = iso(self.seal.upto - SLACK).encode() if self.seal else b"0"
        highest = iso(seal.at + SLACK).encode() if seal else b"9"
        for index, read in enumerate(records, start):
            if read is None:
                what = f"entry {index} is none of a record, in canonical form"
                self._add("inconsistent", SEALS + grouped(start), what)
                continue
            at, found, key, sha256, size, trusts = read
            name = key.decode()
            if found or trusts or not lowest <= at <= highest:
                self._remark(read, f"entry {index}, seal {grouped(start)}", lowest, highest)
            rest = b"%b %b %d %d" % (sha256, size, index, start)
            self._must.add(b"R" if index < self.unread else b"r", name, rest)
        self._findings.seen["records"] += len(records)

    def _remark(self, read: Record, place: str, lowest: bytes, highest: bytes) -> None:
        at, found, name, trusts = read[0], read[1], read[2].decode(), read[5]
        if found == b"late":
            self._add("late", name, f"it lay in the store, and no receipt told of it; {place}")
        elif found:
            self._findings.seen["adopted"] += 1
            if not self._adopts:
                detail = "it is called adopted, and a seal before adopted nothing, which ends that for ever"
                self._add("clock", name, f"{detail}; {place}")
        elif not lowest <= at <= highest:
            bounds = f"{at.decode()} is not between {lowest.decode()} and {highest.decode()}"
            self._add("clock", name, f"{bounds}; {place}")
        if trusts and name.startswith("_acts/"):
            self._trusts.append((name, trusts.decode("utf-8", "replace")))

    def _settle(self, end: int, note: Checkpoint | None) -> None:
        """Say what must lie in the log now, and take note of how far it goes."""
        self._follows(self._edge, end)
        self.seals, self.size, self.root = self.seals + 1, end, self._edge.root()
        if note and note.root == self.root:
            self.newest, self.note = note, self._files[CHECKPOINTS + grouped(end)] or b""
            for key, text in self._trusts if self._signatures.given and note.signatures else ():
                if not self._signatures.introduce(text):
                    self._add("inconsistent", key, "the next key that it names is none")
            self._trusts.clear()
        for who, remembered in self.remembered.pop(end, []):
            if remembered != self.root:
                self._add("inconsistent", who, f"at size {end} it has another root than the log")
        kept = (SEALS + grouped(end), CHECKPOINTS + grouped(end))
        self._files = {key: self._files[key] for key in kept if key in self._files}

    def _follows(self, edge: Edge, end: int) -> None:
        """Say which tiles and bundles must be there at this size, and with which content."""
        news = [*edge.full]
        for level, (key, content) in enumerate(edge.partial()):
            if self._partial.get(level) != key:
                self._partial[level] = key
                news.append((key, content))
        for key, content in news:
            rest = b"%b %d %d 0" % (hashlib.sha256(content).hexdigest().encode(), len(content), end)
            self._must.add(b"l", key, rest)
        edge.full.clear()

    def _pending(self) -> None:
        """Look at a seal without a checkpoint: a sealer is at work, or was killed there."""
        start, sealed = self._edge.size, self._sealed(self._edge.size)
        key, lines = SEALS + grouped(start), sealed.lines if sealed else []
        seal, end = seal_of(lines), start + len(lines)
        if key not in self._files:
            return
        if sealed is None or seal is None:
            self._add("inconsistent", key, "it is no whole seal of this place in the log")
            return
        if not self._signatures.judge_seal(key, sealed, self._signatures.trusted(), None):
            return
        edge, newest, now = self._edge.grown(lines), self.seal, datetime.now(UTC)
        self._entries(start, lines)
        self.seal = newest  # nothing proves what this one says
        if now - GRACE < seal.at <= now + GRACE:
            for key, _ in [*edge.full, *edge.partial(), (CHECKPOINTS + grouped(end), b"")]:
                self._must.add(b"c", key)
        elif seal.at < now:
            detail = (
                f"nothing proves the entries of the seal of {iso(seal.at)}; the next sealer will write it"
            )
            self._add("missing", CHECKPOINTS + grouped(end), detail)
            self._follows(edge, end)


# --- What others say of the log: witnesses and time stamps ------------------------------------------------


class Evidence:
    """The files beside the checkpoints that somebody else has signed."""

    def __init__(self, source: Source, witnesses: Sequence[Vkey], must: Spill, findings: Findings) -> None:
        self._source, self._must, self._findings = source, must, findings
        self._add = findings.add
        self._witnesses = {witness.label.rpartition("+")[2]: witness for witness in witnesses}
        self._cosigned = Numbers(source, COSIGNATURES, "_[0-9a-f]{8}")
        self._stamped = Numbers(source, TIMESTAMPS, r"\.tsr")
        #: Over HTTP, where nothing can be listed: what to ask for.
        self._probes: list[tuple[int, bytes]] = []
        #: The newest size that each witness has signed, and when.
        self.newest: dict[str, tuple[int, int]] = {}

    def hold(self, size: int, text: bytes) -> None:
        """Hold what is said of this size, and of those since the one before, against the log."""
        for at, rest in self._cosigned.until(size):
            self._cosignature(at, rest, text if at == size else b"")
        for at, rest in self._stamped.until(size):
            self._timestamp(at, rest, text if at == size else b"")
        if self._witnesses and not self._source.lists:
            self._probes = [*self._probes[1 - PROBES :], (size, text)]

    def finish(self, size: int) -> None:
        """Look at what is said of sizes that the log does not have (any more)."""
        for at, text in self._probes:
            for key_id in self._witnesses:
                self._cosignature(at, f"_{key_id}", text)
        for at, rest in self._cosigned.until(float("inf")):
            self._cosignature(at, rest, b"", rolled_back=f"the log has {size} entries")
        for key_id, witness in self._witnesses.items():
            if key_id not in self.newest:
                detail = f"{witness.label} has signed nothing here, and cannot tell whether the log was cut"
                self._add("missing", COSIGNATURES, detail)

    def _cosignature(self, at: int, rest: str, text: bytes, *, rolled_back: str = "") -> None:
        key, witness = COSIGNATURES + grouped(at) + rest, self._witnesses.get(rest[1:])
        try:
            note = checkpoint(self._source.read(key, NOTE_BYTES))
        except Absent:
            return
        except Unusable:
            note = None
        good = note and len(note.signatures) == 1 and len(note.signatures[0][1]) == 8 + 64 and note.size == at
        label, signature = note.signatures[0] if note and good else ("", b"")
        signed_at = int.from_bytes(signature[:8], "big")
        if witness and note and good:
            message = b"cosignature/v1\ntime %d\n" % signed_at + note.text
            good = label == witness.label and witness.signed(signature[8:], message)
        if note is None or not good or not label.endswith("+" + rest[1:]):
            self._read(key, "bad_signature", "it is malformed, or its signature does not verify")
            return
        self._findings.seen["cosignatures" if witness else "strangers"] += 1
        if witness:
            self.newest[rest[1:]] = max(self.newest.get(rest[1:], (0, 0)), (at, signed_at))
        if text == note.text:
            self._read(key)
        elif text:
            self._read(key, "inconsistent", f"{label} saw another log of size {at}")
        elif witness and rolled_back:
            self._read(key, "rolled_back", f"{label} saw size {at}, and {rolled_back}")
        # Otherwise it belongs to no checkpoint, and stays an extra file.

    def _timestamp(self, at: int, rest: str, text: bytes) -> None:
        if not text:
            return  # it belongs to no checkpoint, and stays an extra file
        key = TIMESTAMPS + grouped(at) + rest
        try:
            token = self._source.read(key, TOKEN_BYTES)
        except (Absent, Unusable):
            token = b""
        # One DER sequence and no byte more; the hash stands in it as an OCTET STRING of 32 bytes.
        octets = token[1] & 0x7F if token[1:2] > b"\x80" else 0
        length = int.from_bytes(token[2 : 2 + octets] if octets else token[1:2], "big")
        digest = b"\x04\x20" + hashlib.sha256(text).digest()
        if token[:1] != b"\x30" or len(token) != 2 + octets + length or digest not in token:
            self._read(key, "inconsistent", f"it is no time stamp of the checkpoint of size {at}")
        else:
            self._findings.seen["stamps"] += 1
            self._read(key)

    def _read(self, key: str, kind: str = "", detail: str = "") -> None:
        self._findings.seen["files"] += 1
        self._must.add(b"c", key)
        if kind:
            self._add(kind, key, detail)


# --- One part of the files --------------------------------------------------------------------------------


class Part:
    """Holds what must be there against what is there, for the keys of one part."""

    def __init__(self, source: Source, directory: Path, findings: Findings) -> None:
        self._source, self._directory, self._findings = source, directory, findings
        self._add = findings.add
        task = json.loads((directory / "task").read_text())
        #: Seconds since 1970: until when the newest seal has all, and when this verification began.
        self._upto, self._began_at = float(task["upto"]), float(task["began_at"])

    def judge(self, number: int) -> None:
        must: dict[bytes, list[bytes]] = {}
        for words in spilled(self._directory, "must", number):
            known = must.setdefault(words[1], words)
            if known is not words and words[0] in b"rR":
                places = f"entries {known[4].decode()} and {words[4].decode()} tell of it"
                self._add("duplicate", words[1].decode(), places)
        for flag, key in spilled(self._directory, "there", number):
            if key not in must:
                self._stray(key.decode(), regular=flag == b"f")
        for key in sorted(must):
            if must[key][0] in b"rl":
                self._file(must[key])

    def _file(self, words: list[bytes]) -> None:
        flag, raw, sha256, size, index, start = words
        key, expected, wrong, kind = raw.decode(), int(size), "", "modified"
        try:
            actual, digest = self._source.digest(key, expected)
        except Absent:
            kind, wrong = "missing", "there is no such file"
        except Unusable as unusable:
            wrong = str(unusable)
        else:
            self._findings.seen["files"] += 1
            self._findings.seen["bytes"] += actual
            if actual != expected:
                wrong = f"it has {'more' if actual > expected else actual} bytes, not {expected}"
            elif digest != sha256.decode():
                wrong = f"its SHA-256 is not {sha256.decode()}"
        if wrong and flag == b"r":
            self._add(kind, key, f"{wrong}; entry {int(index)}, seal {grouped(int(start))}")
        elif wrong:
            kind = "inconsistent" if kind == "modified" else kind
            self._add(kind, key, f"{wrong}, as the entries before size {int(index)} have it")

    def _stray(self, key: str, *, regular: bool) -> None:
        if not regular or key.startswith(f"{LOG}/") or not _SHAPE.fullmatch(key):
            self._add("extra", key, "no entry tells of it, and it is no record by its name or kind")
            return
        try:
            at = self._source.modified_at(key)
        except Absent:
            return  # it was there for a moment
        (first, last), grace = span_of_name(key), GRACE.total_seconds()
        named = first < at < last
        if named and self._began_at - grace < at < time.time() + grace:
            self._findings.young(key, f"written at {iso(at)}")
            return
        when = f"written at {iso(at)}" + ("" if named else f", its name is of {iso(first)} to {iso(last)}")
        upto = f"the newest seal has all until {iso(self._upto)}" if self._upto else "there is no seal"
        kind = "unsealed" if at > self._upto else "extra"
        self._add(kind, key, f"no entry tells of it; it was {when}, and {upto}")


_MOMENT = r"([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}"  # a UUIDv7: milliseconds since 1970, and noise
#: Names that tell when a file was written, and how far from that it may be: a run may wait in a queue.
_TIMED = (
    (re.compile(rf"_reviews/{_DAY}/{_ID}/{_MOMENT}\.json", re.ASCII), 16, GRACE),
    (re.compile(rf"_attempts/{_DAY}/{_ID}/{_ID}_([0-9]{{1,15}})\.json", re.ASCII), 10, DAY),
    (re.compile(rf"(?:_acts/)?{_DAY}/{_MOMENT}(?:_begun)?\.json", re.ASCII), 16, DAY),
)
_OF_DAY = re.compile(rf"({_DAY})/(?!{_ID}_advisory_){_ID}\.json", re.ASCII)


def span_of_name(key: str) -> tuple[float, float]:
    """Return between which times a file was written, by its name, in seconds since 1970.

    Any time where the name tells of none: of attachments, and of what comes later than the run, batch or act
    that it is named after: explanations, reports, ends.
    """
    for pattern, base, slack in _TIMED:
        if found := pattern.fullmatch(key):
            at = int(found[1], base) / 1000
            return at - slack.total_seconds(), at + slack.total_seconds()
    with suppress(ValueError):
        if found := _OF_DAY.fullmatch(key):  # the id of a migrated run may tell no time, its day does
            day = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
            return (day - DAY).timestamp(), (day + 2 * DAY).timestamp()
    return float("-inf"), float("inf")


# --- Several processes ------------------------------------------------------------------------------------


def run_share(directory: str, what: str, share: str) -> int:
    """Do the work of one process: list the records, or judge every n-th part."""
    place, (first, step) = Path(directory), map(int, share.split("/"))
    findings = Findings(place / f"findings.{what}.{first}")
    source = opened(json.loads((place / "task").read_text())["store"])
    if what == "list":
        list_files(source.files(""), Spill(place, "there"), findings)
    else:
        part = Part(source, place, findings)
        for number in range(first, PARTS, step):
            part.judge(number)
    source.close()
    findings.close()
    return CLEAN


class Processes:
    """This very file, run several times at once; or its work done here, where that is not worth it."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self._directory, self._jobs = str(directory), jobs
        self._running: list[subprocess.Popen[str]] = []

    def start(self, what: str, processes: int) -> None:
        file = globals().get("__file__", "")
        if self._jobs == 1 or not processes or not Path(file).is_file():
            run_share(self._directory, what, "0/1")
            return
        for share in range(processes):
            command = [sys.executable, "-I", file, "_share", self._directory, what, f"{share}/{processes}"]
            self._running.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
            )

    def wait(self) -> None:
        for process in self._running:
            words = process.communicate()[1].strip()
            if process.returncode:
                raise (Away if process.returncode == AWAY else RuntimeError)(words.removeprefix("error: "))
        self._running.clear()

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


# --- The whole store --------------------------------------------------------------------------------------


class Verification:
    """One run of `verify`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._keys, self._witnesses = vkeys(options.key, ED25519), vkeys(options.witness, COSIGNATURE)
        #: Checkpoints that the caller remembers, by the file that holds each.
        self._notes: dict[str, Checkpoint] = {}
        for path in (options.state, options.since):
            if path and (path == options.since or os.path.lexists(path)):
                note = checkpoint(local_bytes(path))
                if note is None:
                    raise Usage(f"{path} is no checkpoint; give a file as --state writes it")
                self._notes[path] = note
        if options.state:
            self._write_state(b"")
        self._jobs = options.jobs or os.cpu_count() or 1

    def run(self) -> int:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="verifier-") as scratch:
            place = Path(scratch)
            processes = Processes(place, self._jobs)
            source = opened(self._options.store)
            try:
                walk = self._verify(source, place, processes)
            finally:
                processes.kill()
                source.close()
            return self._tell(walk, place, time.monotonic() - began)

    def _verify(self, source: Source, place: Path, processes: Processes) -> Walk:
        task = {"store": self._options.store, "began_at": time.time(), "upto": 0.0}
        (place / "task").write_text(json.dumps(task))
        findings, must = Findings(place / "findings.log"), Spill(place, "must")
        store_id = self._identity(source, findings)
        # First what lies in the log, then the log: what a sealer writes meanwhile is no extra file.
        list_files(source.files(LOG), Spill(place, "there"), findings)
        if source.lists:
            processes.start("list", 1 if source.names("_log/tile/1") else 0)
        walk = self._walk(source, must, findings)
        must.flush()
        if walk.origin and store_id and walk.origin != f"rmos-runs/{store_id}":
            findings.add(
                "inconsistent", IDENTITY, f"it is the store {store_id}, and the log is of {walk.origin}"
            )
        processes.wait()
        task["upto"] = walk.seal.upto.timestamp() if walk.seal else 0.0
        (place / "task").write_text(json.dumps(task))
        processes.start("parts", self._jobs if walk.size > 1000 else 0)  # a start costs some 50 ms
        processes.wait()
        findings.close()
        return walk

    def _identity(self, source: Source, findings: Findings) -> str:
        """Return the store's id; its file is no entry, but all that it holds follows from the id."""
        try:
            data = source.read(IDENTITY, NOTE_BYTES)
            store_id = json.loads(data)["store_id"]
            made = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(store_id[:12], 16))
            fields = {"created_at_utc": made.isoformat().replace("+00:00", "Z"), "store_id": store_id}
            if json.dumps(fields, separators=(",", ":")).encode() != data:
                findings.add("modified", IDENTITY, f"it is not what was written for the store {store_id}")
        except Absent:
            if source.lists and not source.names(LOG):
                raise Away(
                    f"{self._options.store} is no store: it has neither {IDENTITY} nor a log"
                ) from None
            findings.add("missing", IDENTITY, "every store has one at its root")
        except Unusable as unusable:
            findings.add("modified", IDENTITY, str(unusable))
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            findings.add("modified", IDENTITY, "it is no identity of a store")
        else:
            return str(store_id)
        return ""

    def _walk(self, source: Source, must: Spill, findings: Findings) -> Walk:
        signatures = Signatures(self._keys, findings)
        walk = Walk(source, signatures, must, findings)
        evidence = Evidence(source, self._witnesses, must, findings)
        for path, note in self._notes.items():
            walk.remembered.setdefault(note.size, []).append((path, note.root))
            if path == self._options.since:
                walk.unread = note.size
        for size, text in walk.steps():
            evidence.hold(size, text)
        evidence.finish(walk.size)
        self._compare(walk, findings)
        newest = CHECKPOINTS + grouped(walk.size)
        if signatures.given and not walk.size:
            findings.add("missing", CHECKPOINTS, "there is no checkpoint at all, and a key was given")
        elif signatures.given and signatures.unsigned == walk.seals:
            findings.add("unknown_key", newest, "no checkpoint is signed, and a key was given")
        if self._options.live and walk.seal and datetime.now(UTC) > walk.seal.next + GAP:
            findings.add("gap", newest, f"the next seal was promised for {iso(walk.seal.next)}")
        walk.unsigned = signatures.unsigned
        if evidence.newest:
            findings.seen["seen"], findings.seen["seen_at"] = max(evidence.newest.values())
        return walk

    def _compare(self, walk: Walk, findings: Findings) -> None:
        """Hold what is remembered against the log, where the walk did not come to its size."""
        for path, note in self._notes.items():
            if walk.origin and note.origin != walk.origin:
                findings.add(
                    "inconsistent", path, f"it is a checkpoint of {note.origin}, not of {walk.origin}"
                )
            elif note.size > walk.size:
                findings.add(
                    "rolled_back", path, f"it remembers size {note.size}, and the log has {walk.size}"
                )
            elif note.size in walk.remembered:
                findings.add("inconsistent", path, f"the log has no checkpoint of its size, {note.size}")

    def _forgets(self, walk: Walk, doubts: int) -> str:
        """Return why the state file stays as it is; nothing if it is to hold the newest checkpoint."""
        note, before = walk.newest, self._notes.get(self._options.state)
        if not note or doubts:
            return "what was found speaks against the newest checkpoint"
        if before and note.size < before.size:
            return "it holds a larger size"
        if not self._keys and (note.signatures or (before and before.signatures)):
            return "no --key was given, and what is remembered of a signed log must be proven"
        return ""

    def _write_state(self, data: bytes) -> None:
        """Write the state file; of no data only try whether it could be written."""
        path = Path(self._options.state)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if data:
                draft.replace(path)
            else:
                draft.unlink()
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise Usage(f"{path} cannot be written: {error.strerror}") from None

    def _tell(self, walk: Walk, place: Path, seconds: float) -> int:
        """Print what was found, in order unless there is very much of it, and what that means."""
        paths, counts, seen, doubts = sorted(place.glob("findings.*")), Counter[str](), Counter[str](), 0
        for told in read_findings(paths):
            if isinstance(told, dict):
                counts.update(told["counts"])
                seen.update(told["seen"])
            else:
                doubts += told[0] in DOUBTS or (told[0] == "missing" and told[1].startswith(f"{LOG}/"))
        forgets = self._forgets(walk, doubts) if self._options.state else ""
        summary = self._summary(walk, counts, seen, forgets) | {"seconds": round(seconds, 1)}
        found, young = read_told(paths, counts.total()), read_told(paths, seen["young"], young=True)
        if self._options.json:
            # A line each, and in ASCII, so that it is JSON whatever a name holds.
            for names, each in (("findings", found), ("young", young)):
                sys.stdout.write(("{" if each is found else "],\n") + f'"{names}":[')
                for number, told in enumerate(each):
                    one = dict(zip(("kind", "key", "detail"), told, strict=True))
                    sys.stdout.write(("," if number else "") + "\n" + json.dumps(one))
            sys.stdout.write(f'],\n"summary":{json.dumps(summary)}}}\n')
        else:
            self._say(found, young, summary)
        code = FOUND if counts else CLEAN
        if self._options.state and not forgets:
            # Last, so that nothing that was found is lost with it.
            sys.stdout.flush()
            try:
                self._write_state(walk.note)
            except Usage as error:
                code = max(code, failed(error))
        return code

    def _say(self, found: Iterable[list[str]], young: Iterable[list[str]], summary: dict[str, Any]) -> None:
        for kind, key, detail in found:
            say(f"{human(kind)}: {key}: {detail}")
        for name, value in summary.items():
            lines = value if isinstance(value, list) else [value]
            if name == "findings":
                lines = [", ".join(f"{human(kind)} {count:,}" for kind, count in value.items()) or "none"]
            elif name == "not_sealed_yet":
                lines += [f"{key}, {detail}" for _, key, detail in islice(young, MOST_NAMED)]
            for number, line in enumerate(lines):
                text = f"{line:,}" if isinstance(line, int) else line
                say(f"{'' if number else human(name):<15}{text}")

    def _summary(self, walk: Walk, counts: Counter[str], seen: Counter[str], forgets: str) -> dict[str, Any]:
        note, options, wrong = walk.newest, self._options, counts.__getitem__
        left = [
            (not self._keys, "signatures: no --key was given, so anybody could have written this log"),
            (
                walk.unsigned and self._keys,
                f"signatures of {walk.unsigned:,} checkpoints and their seals: they have none",
            ),
            (
                not (options.witness or self._notes),
                "whether the log was once longer: none of --state, --since and --witness knows",
            ),
            (forgets, f"the newest checkpoint, for the next time: --state stays as it is, for {forgets}"),
            (not options.live, "whether the newest seal is late: --live was not given"),
            (walk.unread, f"the records among the first {walk.unread:,} entries: --since was given"),
            (
                options.store.startswith("http"),
                "extra and unsealed files: by an address nothing can be listed",
            ),
            (seen["strangers"], f"{seen['strangers']:,} cosignatures: their witness was not named"),
            (
                seen["stamps"],
                f"signatures of {seen['stamps']:,} time stamps: `openssl ts -verify` checks them",
            ),
        ]
        consistent = not wrong("inconsistent")
        signed = self._keys and not wrong("bad_signature") + wrong("unknown_key")
        proven = [
            (consistent, "each checkpoint extends the one before"),
            (signed, "the checkpoints are signed by the key that was given, or by one that it introduced"),
            (
                not wrong("modified") + wrong("missing"),
                "each record that was read holds the bytes of its entry",
            ),
            (
                self._notes and consistent and not wrong("rolled_back"),
                "the log continues what was remembered",
            ),
            (seen["seen"], f"a witness saw the log at size {seen['seen']:,}, at {iso(seen['seen_at'])}"),
        ]
        return {
            "store": options.store,
            "origin": walk.origin or "not known",
            "entries": walk.size,
            "seals": walk.seals,
            "newest": iso(walk.seal.at) if walk.seal else "there is no seal",
            "root": b64(walk.root),
            "signed_by": [label for label, _ in note.signatures] if note and note.signatures else ["nobody"],
            "records": seen["records"],
            "adopted": seen["adopted"],
            "not_sealed_yet": seen["young"],
            "files_read": seen["files"],
            "bytes_read": seen["bytes"],
            "proven": [text for true, text in proven if true and walk.size] or ["nothing"],
            "not_looked_at": [text for true, text in left if true] or ["nothing was left out"],
            "findings": {kind: counts[kind] for kind in KINDS if counts[kind]},
        }


def human(kind: str) -> str:
    return kind.replace("_", " ")


def say(line: str) -> None:
    # Names in a store may hold what would steer a terminal, or end the line.
    plain = line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    sys.stdout.write(plain + "\n")


def local_file(path: str) -> BinaryIO:
    """Open a file of the caller's own; only a regular one, for others may never end, or never begin."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return os.fdopen(file, "rb")
    os.close(file)
    raise OSError("it is no regular file")


def local_bytes(path: str, *, piped: bool = False) -> bytes:
    """Return what a small file of the caller's own holds; with `piped` also what comes out of a pipe."""
    try:
        with Path(path).open("rb") if piped else local_file(path) as file:
            return file.read(PROOF_BYTES)
    except (OSError, ValueError) as error:
        raise Usage(f"{path} cannot be read: {error}") from None


# --- One record by its proof (C2SP tlog-proof) ------------------------------------------------------------

_PROOF = re.compile(
    rb"c2sp\.org/tlog-proof@v1\n(?:extra ([A-Za-z0-9+/]+=*)\n)?index (0|[1-9][0-9]{0,17})\n"
    rb"((?:[A-Za-z0-9+/]{43}=\n){0,63})\n"
)


def check(options: argparse.Namespace) -> int:
    """Say whether a file is the record that its proof tells of, and print that or what is wrong."""
    keys, data = {key.label: key for key in vkeys(options.key, ED25519)}, local_bytes(options.proof)
    found = _PROOF.match(data)
    note = checkpoint(data[found.end() :]) if found else None
    entry = unbase64((found[1] or b"").decode()) if found else None
    read = record(entry or b"")
    wrong: list[tuple[str, str, str]] = []
    right = ""
    if found is None or note is None or entry is None or read is None:
        wrong.append(("inconsistent", options.proof, "it is no proof (c2sp.org/tlog-proof@v1) of a record"))
    else:
        index, path = int(found[2]), [unbase64(line.decode()) or b"" for line in found[3].split()]
        if not proves(leaf_hash(entry), index, note.size, path, note.root):
            wrong.append(("inconsistent", options.proof, "it does not lead to the root of its checkpoint"))
        wrong += [(kind, options.proof, detail) for kind, detail in unproven(note, keys)]
        wrong += differs(options.file, read)
        how = f" (found {read[1].decode()}: when it was written is not proven)" if read[1] else ""
        who = ", ".join(label for label, _ in note.signatures) or "nobody"
        caveat = "" if keys else "; no --key was given, so anybody could have made this proof"
        right = (
            f"this is the record of {read[2].decode()}, in the log since {read[0].decode()}{how}, unchanged; "
            f"entry {index} of {note.origin}, in its checkpoint of size {note.size}, signed by {who}{caveat}"
        )
    if options.json:
        told = [dict(zip(("kind", "key", "detail"), one, strict=True)) for one in wrong]
        sys.stdout.write(json.dumps({"findings": told, "proven": None if wrong else right}) + "\n")
    else:
        for kind, key, detail in wrong:
            say(f"{human(kind)}: {key}: {detail}")
        if not wrong:
            say(right)
    return FOUND if wrong else CLEAN


def unproven(note: Checkpoint, keys: dict[str, Vkey]) -> list[tuple[str, str]]:
    """Return what is wrong with a single checkpoint's signatures; nothing if no key is given."""
    known = [(label, signature) for label, signature in note.signatures if label in keys]
    for label, signature in known:
        if not keys[label].signed(signature, note.text):
            return [("bad_signature", f"the signature of {label} does not verify")]
    if known or not keys:
        return []
    signers = ", ".join(label for label, _ in note.signatures) or "nobody"
    return [("unknown_key", f"its checkpoint is signed by {signers}, not by a key that was given")]


def differs(path: str, read: Record) -> list[tuple[str, str, str]]:
    key, sha256, size = read[2].decode(), read[3].decode(), int(read[4])
    total, hashed = 0, hashlib.sha256()
    try:
        with local_file(path) as file:
            while total <= size and (piece := file.read(PIECE_BYTES)):
                total += len(piece)
                hashed.update(piece)
    except (OSError, ValueError) as error:
        raise Away(f"{path} cannot be read: {error}") from None
    if total == size and hashed.hexdigest() == sha256:
        return []
    return [("modified", key, f"{path} is not the file of {size} bytes with the SHA-256 {sha256}")]


# --- The command line -------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    what = "Tell whether the records of a store were changed, removed, swapped, back-dated or added."
    whole = argparse.ArgumentParser(prog="verifier.py", description=what)
    commands = whole.add_subparsers(dest="command", required=True, metavar="verify|check")
    verify = commands.add_parser("verify", help="a whole store")
    verify.add_argument("store", metavar="STORE", help="its directory, or the http(s) address of its files")
    one = commands.add_parser("check", help="one file by its proof, without the store")
    one.add_argument("proof", metavar="PROOF")
    one.add_argument("file", metavar="FILE")
    many: dict[str, Any] = {"action": "append", "default": [], "metavar": "VKEY|FILE"}
    for command in (verify, one):
        command.add_argument("--key", **many, help="a public key of the log, or a file with one on each line")
        command.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument("--witness", **many, help="the public key of a witness whose word must be there")
    verify.add_argument("--since", metavar="CHECKPOINT_FILE", help="leave the records before it unread")
    verify.add_argument("--state", metavar="FILE", help="remember the newest checkpoint there for next time")
    verify.add_argument("--live", action="store_true", help="the store is in use: a late seal is a gap")
    verify.add_argument("--jobs", type=int, default=0, metavar="N", help="processes; one for each core")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["_share"]:
            return run_share(*words[1:])
        options = parser().parse_args(words)
        return check(options) if options.command == "check" else Verification(options).run()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN
    except KeyboardInterrupt:
        return STOPPED
    except (Usage, Away, OSError, ImportError, Exception) as error:  # noqa: BLE001 - told, not shown as a traceback
        return failed(error)


def failed(error: Exception) -> int:
    """Say what went wrong and what to do; return the exit code. Nothing is proven then."""
    code, text = BROKEN, f"an error in this verifier, {type(error).__name__}: {error}; nothing is proven"
    if isinstance(error, Usage | Away):
        code, text = USAGE if isinstance(error, Usage) else AWAY, str(error)
    elif isinstance(error, ImportError):
        code, text = USAGE, f"{error}; signatures need it: pip install cryptography"
    elif isinstance(error, OSError):
        code, text = AWAY, f"{error}; {tempfile.gettempdir()} may be full, and TMPDIR names another"
    sys.stderr.write(f"error: {text}\n".encode("utf-8", "backslashreplace").decode())
    return code


if __name__ == "__main__":
    # So that the temporary directory and the other processes go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
