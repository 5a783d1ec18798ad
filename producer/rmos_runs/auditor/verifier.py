#!/usr/bin/env python3
"""Tell, from a copy of a store and a public key, whether its records were changed, removed, swapped or added.

    verifier.py verify STORE [--key VKEY|FILE]... [--witness VKEY|FILE]... [--since CHECKPOINT_FILE]
                             [--state FILE] [--live] [--json] [--jobs N]
    verifier.py check PROOF FILE [--key VKEY|FILE]... [--json]

STORE is a directory, or the http(s) address under which its files are served. Nothing is ever written to it.
Exit codes: 0 clean, 7 something was found, 2 wrong usage, 6 the store cannot be read, 1 an error in this file.

This is one file on purpose: Python 3.11 and `cryptography` (for Ed25519) are all it needs, and it shares no
line with the program that writes the log, so that a mistake in one cannot hide in the other.

How to read it. The log under `_log/` is a Merkle tree (RFC 6962) whose leaves are lines of JSON; each line of a
record names its key, size and SHA-256. A *seal* file holds the lines that were added at a time, the last of
them the seal's own; a *checkpoint* is a signed note of the tree's size and root after each seal. *Bundles* hold
the same lines, and *tiles* the hashes of the tree, in the files that C2SP tlog-tiles lays down. So:

1. `Walk` reads the seals from the first, grows the tree line by line, and holds its root against each
   checkpoint, whose signature `Signatures` judges. What the tiles and bundles must hold follows from the lines.
2. Whatever must lie in the store by then (records, tiles, bundles) is written into a temporary directory, in 64
   parts by the hash of its key, and so is the name of each file that does lie there. Nothing is kept in memory.
3. `Part` takes one of the parts: it hashes each file that must be there, and looks at each that should not.

Each file is read once, links are never followed, and nothing that lies in the store is believed before it is
proven.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import http.client
import json
import os
import re
import signal
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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CLEAN, BROKEN, USAGE, AWAY, FOUND = 0, 1, 2, 6, 7
STOPPED = 130

#: What can be found. Each finding names a key, and where in the log it is told.
KINDS = (
    "modified",  # a file does not hold what its entry says
    "missing",  # an entry without its file, or a file of the log that must be there
    "unsealed",  # a record without an entry, written after the newest seal, and longer ago than GRACE
    "extra",  # a file that no entry tells of and that was there before; or of no shape of ours
    "late",  # an entry of a file that was found in the store without a receipt
    "duplicate",  # two entries of one key
    "bad_signature",  # of a known key and wrong; or malformed; or none, after checkpoints were signed
    "unknown_key",  # signed by nobody who is trusted
    "inconsistent",  # the log contradicts itself, or what somebody remembers of it
    "rolled_back",  # somebody remembers a longer log
    "gap",  # no seal by the time at which the one before promised one
    "clock",  # an entry whose time lies outside its seal's bounds
)

#: Seconds: how long a record may lie in the store before it is sealed, and how far clocks may differ.
GRACE, SLACK, GAP = 120, 1, 60
#: What a file may have at most, in bytes. Anything larger is none of that kind, and is not read.
NOTE_BYTES, SEAL_BYTES, TILE_BYTES, BUNDLE_BYTES = 1 << 16, 1 << 26, 1 << 13, 256 * 65_537
TOKEN_BYTES, PROOF_BYTES, IDENTITY_BYTES = 1 << 18, 1 << 20, 4_096
PIECE = 1 << 20
LINES_IN_MEMORY = 50_000
HASH = 32
WIDTH = 256  # hashes in a full tile, entries in a full bundle
DEPTH = 10  # directories below each other that are looked into
SECONDS = 30.0  # for each step of an HTTP request
SLOWEST = 10_000  # bytes a second of an answer over HTTP, at least
TRIES = 3
PROBES = 100  # of the newest checkpoints for which cosignatures are asked over HTTP

LOG = "_log/"
SEALS, CHECKPOINTS = "_log/seals/", "_log/checkpoints/"
COSIGNATURES, TIMESTAMPS = "_log/cosignatures/", "_log/timestamps/"
IDENTITY = "_store.json"


class Usage(Exception):
    """The caller asked for what cannot be done."""


class Away(Exception):
    """The store cannot be read at all."""


class Absent(Exception):
    """Nothing lies under this key."""


class Unusable(Exception):
    """Something lies there, but no file that can be read; the text says what."""


# --- What was found ---------------------------------------------------------------------------------------------


class Findings:
    """Everything that was found, in a file: a store may be wrong in a million places."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self.counts: Counter[str] = Counter()
        #: Not findings: files read, bytes read, records that are too young to be in the log, and so on.
        self.seen: Counter[str] = Counter()

    def add(self, kind: str, key: str, detail: str) -> None:
        self.counts[kind] += 1
        # A surrogate in a key is a byte of a name that is no UTF-8.
        plain = key.encode("utf-8", "backslashreplace").decode()
        self._lines.append(json.dumps([kind, plain, detail]) + "\n")
        if len(self._lines) == LINES_IN_MEMORY:
            self._write()

    def close(self) -> None:
        """Write the counts as the last line."""
        self._lines.append(json.dumps({"counts": self.counts, "seen": self.seen}) + "\n")
        self._write()

    def _write(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(self._lines)
        self._lines.clear()


def found_in(paths: Iterable[Path]) -> Iterator[list[str]]:
    """Yield kind, key and detail of everything that several processes found."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line[0] == "[")


def totals_of(path: Path) -> dict[str, dict[str, int]]:
    """Return what `close` wrote."""
    with path.open(encoding="utf-8") as file:
        *_, last = file
    return json.loads(last)  # type: ignore[no-any-return]


# --- The tree (RFC 6962) ----------------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tile_path(level: int | str, number: int, width: int = WIDTH) -> str:
    """Return the key of a tile, or with the level `entries` of a bundle, as tlog-tiles names it."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"{LOG}tile/{level}/{'/'.join(reversed(groups))}{partial}"


class Edge:
    """A tree that only grows: its right edge is all that is kept of it."""

    def __init__(self) -> None:
        self.size = 0
        #: The roots of the largest complete subtrees, from left to right.
        self.stack: list[bytes] = []
        #: For each level, what the last tile holds so far; and the entries of the last bundle, None if unknown.
        self.rows: list[list[bytes]] = [[]]
        self.lines: list[bytes | None] = []
        #: Tiles and bundles that became full: key and content.
        self.full: list[tuple[str, bytes | None]] = []

    def copy(self) -> Edge:
        other = Edge()
        other.size, other.stack, other.lines = self.size, self.stack.copy(), self.lines.copy()
        other.rows = [row.copy() for row in self.rows]
        return other

    def grow(self, leaves: Sequence[bytes], lines: Sequence[bytes | None]) -> None:
        """Add entries, each by its hash and its bytes."""
        sha256, stack, row, bundle, size = hashlib.sha256, self.stack, self.rows[0], self.lines, self.size
        for leaf, line in zip(leaves, lines, strict=True):
            row.append(leaf)
            bundle.append(line)
            if len(row) == WIDTH:
                self.full.append((tile_path("entries", size // WIDTH), packed(bundle)))
                self.full.append((tile_path(0, size // WIDTH), b"".join(row)))
                row.clear()
                bundle.clear()
            node, left, height = leaf, size, 0
            while left & 1:
                node = sha256(b"\x01" + stack.pop() + node).digest()
                left >>= 1
                height += 1
                if not height & 7:
                    self._raise(height // 8, node, left)
            stack.append(node)
            size += 1
        self.size = size

    def _raise(self, level: int, node: bytes, number: int) -> None:
        """Add the root of a full tile to the level above."""
        if level == len(self.rows):
            self.rows.append([])
        row = self.rows[level]
        row.append(node)
        if len(row) == WIDTH:
            self.full.append((tile_path(level, number // WIDTH), b"".join(row)))
            row.clear()

    def root(self) -> bytes:
        if not self.stack:
            return hashlib.sha256().digest()
        node = self.stack[-1]
        for left in reversed(self.stack[:-1]):
            node = node_hash(left, node)
        return node

    def partial(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield the tiles and the bundle at the edge that are not full: key and content."""
        if self.lines:
            yield tile_path("entries", self.size // WIDTH, len(self.lines)), packed(self.lines)
        for level, row in enumerate(self.rows):
            if row:
                yield tile_path(level, self.size >> 8 * (level + 1), len(row)), b"".join(row)


def packed(lines: Sequence[bytes | None]) -> bytes | None:
    """Return a bundle: each entry after its length in two bytes; None if an entry is not known."""
    parts = [len(line).to_bytes(2, "big") + line for line in lines if line is not None]
    return b"".join(parts) if len(parts) == len(lines) else None


def unpacked(bundle: bytes) -> list[bytes]:
    lines, place = [], 0
    while place < len(bundle):
        end = place + 2 + int.from_bytes(bundle[place : place + 2], "big")
        lines.append(bundle[place + 2 : end])
        place = end
    return lines if place == len(bundle) else []


def proves(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Say whether `path` leads from the leaf at `index` to the root of a tree of `size` (RFC 9162, 2.1.3.2)."""
    if index >= size:
        return False
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
    return last == 0 and node == root


# --- Signed notes and keys (C2SP signed-note, tlog-checkpoint, tlog-cosignature) ---------------------------------


@dataclass(frozen=True)
class Vkey:
    """A public key with its name: `name+8 hex digits+base64(type || 32 bytes)`."""

    name: str
    key_id: bytes
    kind: int
    public: bytes
    text: str

    @property
    def label(self) -> str:
        return f"{self.name}+{self.key_id.hex()}"

    def signed(self, signature: bytes, message: bytes) -> bool:
        # Late, so that the structure of a log can be verified where `cryptography` is missing.
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


ED25519, COSIGNATURE = 1, 4


def vkey(text: str, kind: int) -> Vkey | None:
    """Return the key that `text` is; None if it is none of this kind."""
    name, plus, rest = text.strip().partition("+")
    hexed, _, encoded = rest.partition("+")
    raw = unbase64(encoded)
    if (
        not plus
        or not re.fullmatch(r"[^\s+]+", name)
        or raw is None
        or len(raw) != 1 + HASH
        or raw[0] != kind
    ):
        return None
    key_id = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    return Vkey(name, key_id, kind, raw[1:], text.strip()) if hexed == key_id.hex() else None


def vkeys(words: Iterable[str], kind: int) -> list[Vkey]:
    """Return the keys that the command line names, each as its text or as a file with one on a line."""
    found = []
    for word in words:
        key = vkey(word, kind)
        if key is not None:
            found.append(key)
            continue
        what = "public key" if kind == ED25519 else "witness's public key"
        lines = [line for line in local_text(word, NOTE_BYTES).splitlines() if line and line[0] != "#"]
        keys = [vkey(line, kind) for line in lines]
        if not keys or None in keys:
            raise Usage(f"{word} holds no {what}, which looks like name+1a2b3c4d+base64")
        found += [key for key in keys if key is not None]
    return found


def unbase64(text: str) -> bytes | None:
    """Return the bytes; None unless this is the one way to write them."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


@dataclass(frozen=True)
class Signature:
    name: str
    key_id: bytes
    value: bytes

    @property
    def label(self) -> str:
        return f"{self.name}+{self.key_id.hex()}"


@dataclass(frozen=True)
class Checkpoint:
    """A note: which log had which size and root, and who says so."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: tuple[Signature, ...]


_NOTE = re.compile(rb"([^\x00-\x1f]+)\n(0|[1-9][0-9]{0,17})\n([A-Za-z0-9+/]{43}=)\n")
_SIGNATURE = re.compile("\N{EM DASH} ([^\\s+]+) ([A-Za-z0-9+/]+=*)")


def checkpoint(data: bytes) -> Checkpoint | None:
    """Return the checkpoint that a file holds; None if it is malformed in any way."""
    text, blank, tail = data.rpartition(b"\n\n")
    note = _NOTE.fullmatch(text + b"\n")
    if not blank or note is None or (tail and tail[-1:] != b"\n"):
        return None
    root = unbase64(note[3].decode())
    try:
        origin, lines = note[1].decode(), tail.decode().split("\n")[:-1]
    except UnicodeDecodeError:
        return None
    signatures = []
    for line in lines:
        found = _SIGNATURE.fullmatch(line)
        raw = unbase64(found[2]) if found else None
        if found is None or raw is None or len(raw) < 4 + 64:
            return None
        signatures.append(Signature(found[1], raw[:4], raw[4:]))
    return None if root is None else Checkpoint(text + b"\n", origin, int(note[2]), root, tuple(signatures))


class Signatures:
    """Who may sign, checkpoint after checkpoint: a key in use names the next one in an entry of the log."""

    def __init__(self, keys: Sequence[Vkey], findings: Findings) -> None:
        self.given = bool(keys)
        self._trusted = {(key.name, key.key_id): key for key in keys}
        self._retired: dict[tuple[str, bytes], str] = {}
        #: Named by an entry, and not in use yet.
        self._next: set[tuple[str, bytes]] = set()
        self._signed = False
        self.unsigned = 0
        self._findings = findings

    def judge(self, key: str, note: Checkpoint) -> bool:
        """Say whether the note under `key` may be believed; without any key, whether it is well-formed."""
        if not note.signatures:
            if self._signed:
                self._findings.add(
                    "bad_signature", key, "it is unsigned, and checkpoints before it were signed"
                )
            self.unsigned += not self._signed
            return not self._signed
        self._signed = True
        if not self.given:
            return True
        good, strange = [], []
        for signature in note.signatures:
            known = self._trusted.get((signature.name, signature.key_id))
            if known is None:
                strange.append(signature)
            elif known.signed(signature.value, note.text):
                good.append(known)
            else:
                self._findings.add(
                    "bad_signature", key, f"the signature of {signature.label} does not verify"
                )
                return False
        for signature in strange:
            why = self._retired.get((signature.name, signature.key_id), "which is not trusted")
            self._findings.add("unknown_key", key, f"it is signed by {signature.label}, {why}")
        for signer in good:
            self._use(signer, note.size)
        return bool(good)

    def _use(self, signer: Vkey, size: int) -> None:
        used = (signer.name, signer.key_id)
        if used in self._next:
            self._next.discard(used)
            for other in self._trusted.keys() - self._next - {used}:
                del self._trusted[other]
                self._retired[other] = f"which was retired when {signer.label} signed size {size}"

    def introduce(self, text: str) -> str:
        """Trust a key that an entry names, which a believed checkpoint covers; return what is wrong with it."""
        key = vkey(text, ED25519)
        if key is None:
            return "it names a next key that is none"
        self._trusted[key.name, key.key_id] = key
        self._retired.pop((key.name, key.key_id), None)
        self._next.add((key.name, key.key_id))
        return ""


# --- The store: a directory, or files served over HTTP ----------------------------------------------------------


def said(error: OSError) -> str:
    return error.strerror or type(error).__name__


class Directory:
    """A store as a directory tree. Every directory is opened from its parent, and no link is followed."""

    lists = True
    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # Opening a FIFO must not wait for its writer.
    _FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    _OPEN = 64

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise Away(f"{path} cannot be opened: {error}") from None
        self._open = {"": self._root}

    def close(self) -> None:
        for directory in self._open.values():
            os.close(directory)
        self._open.clear()

    def _directory(self, path: str) -> int:
        known = self._open.get(path)
        if known is not None:
            return known
        if len(self._open) >= self._OPEN:
            del self._open[""]
            self.close()
            self._open[""] = self._root
        above, _, name = path.rpartition("/")
        return self._open.setdefault(path, self._below(above, name))

    def _below(self, above: str, name: str) -> int:
        parent = self._directory(above)
        try:
            return os.open(name, self._DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            raise Absent from None
        except OSError as error:
            raise Unusable(f"{above}/{name} is no directory that can be opened: {said(error)}") from None

    def _file(self, key: str) -> tuple[int, int]:
        """Return an open file and its size."""
        path, _, name = key.rpartition("/")
        try:
            file = os.open(name, self._FILE, dir_fd=self._open.get(path) or self._directory(path))
        except FileNotFoundError:
            raise Absent from None
        except OSError as error:
            raise Unusable(f"it cannot be opened: {said(error)}") from None
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise Unusable("it is no regular file")
        return file, status.st_size

    def read(self, key: str, most: int) -> bytes:
        """Return a file's bytes; raises `Unusable` if it has more than `most`."""
        file, size = self._file(key)
        try:
            if size > most:
                raise Unusable(f"it has {size} bytes, and may have {most}")
            data = b""
            while len(data) <= most and (piece := os.read(file, most + 1 - len(data))):
                data += piece
        except OSError as error:
            raise Unusable(f"it cannot be read: {said(error)}") from None
        finally:
            os.close(file)
        return data

    def digest(self, key: str, size: int) -> tuple[int, bytes]:
        """Return a file's size and hash; no hash if the size is not `size`, for then nothing is read."""
        file, actual = self._file(key)
        try:
            if actual != size:
                return actual, b""
            if size < PIECE:
                data = os.read(file, size + 1)
                if len(data) == size:
                    return size, hashlib.sha256(data).digest()
                os.lseek(file, 0, os.SEEK_SET)
            total, hashed = 0, hashlib.sha256()
            while piece := os.read(file, PIECE):
                hashed.update(piece)
                total += len(piece)
        except OSError as error:
            raise Unusable(f"it cannot be read: {said(error)}") from None
        else:
            return total, hashed.digest()
        finally:
            os.close(file)

    def modified_at(self, key: str) -> float:
        path, _, name = key.rpartition("/")
        try:
            return os.stat(name, dir_fd=self._directory(path), follow_symlinks=False).st_mtime
        except FileNotFoundError:
            raise Absent from None
        except OSError as error:
            raise Unusable(f"nothing is known of it: {said(error)}") from None

    def names(self, path: str) -> list[str]:
        """Return the names in one directory, in order; none if there is no such directory."""
        try:
            return sorted(os.listdir(self._directory(path)))
        except (OSError, Absent, Unusable):
            return []

    def files(self, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
        """Yield each key below a directory, and what is wrong with it: nothing if it is a regular file."""
        prefix = f"{path}/" if path else ""
        below = []
        try:
            above, _, name = path.rpartition("/")
            descriptor = self._below(above, name or ".")
        except Absent:
            return
        except (OSError, Unusable) as error:
            yield path, f"it cannot be listed, and what lies in it is not known: {error}"
            return
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        yield prefix + entry.name, ""
                    else:
                        yield prefix + entry.name, "it is no regular file"
        except OSError as error:
            yield path, f"it cannot be listed, and what lies in it is not known: {said(error)}"
        finally:
            os.close(descriptor)
        for name in below:
            if not path and passed_over(name):
                continue
            if depth == DEPTH:
                yield prefix + name, "it lies deeper than any record of ours, and is not looked into"
            else:
                yield from self.files(prefix + name, depth + 1)


class Web:
    """A store whose files are served as they are, over HTTP. Nothing can be listed."""

    lists = False

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.username or parts.query or parts.fragment or not parts.hostname:
            raise Usage(
                f"{parts.hostname or address} is no plain address of a store: http(s)://HOST[:PORT]/PATH"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise Usage(f"{parts.hostname}: {error}") from None
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = made(parts.hostname, port, timeout=SECONDS)
        self._path = parts.path.rstrip("/")

    def close(self) -> None:
        self._connection.close()

    def read(self, key: str, most: int) -> bytes:
        data = b"".join(self._pieces(key, most))
        if len(data) > most:
            raise Unusable(f"it has more than the {most} bytes that it may have")
        return data

    def digest(self, key: str, size: int) -> tuple[int, bytes]:
        total, hashed = 0, hashlib.sha256()
        for piece in self._pieces(key, size):
            total += len(piece)
            hashed.update(piece)
        return total, hashed.digest()

    def _pieces(self, key: str, most: int) -> Iterator[bytes]:
        """Yield what an answer holds, up to one byte more than `most`."""
        for attempt in range(1, TRIES + 1):
            pieces = []
            try:
                answer = self._ask(key)
                deadline = time.monotonic() + SECONDS + most / SLOWEST
                left = most + 1
                while left and (piece := answer.read(min(left, PIECE))):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"slower than {SLOWEST} bytes a second")
                    left -= len(piece)
                    pieces.append(piece)
                if not left:
                    self._connection.close()  # rather than read what else there is
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == TRIES:
                    raise Away(f"{key} cannot be fetched: {str(error) or type(error).__name__}") from None
                time.sleep(attempt / 2)
            else:
                yield from pieces
                return

    def _ask(self, key: str) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": "rmos-runs-verifier"}
        self._connection.request("GET", f"{self._path}/{key}", headers=headers)
        answer = self._connection.getresponse()
        if answer.status == http.HTTPStatus.OK:
            return answer
        self._connection.close()
        if answer.status in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE}:
            raise Absent
        if answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise OSError(f"the server answers {answer.status}")
        raise Away(f"{key} cannot be fetched: the server answers {answer.status}")

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


def passed_over(name: str) -> bool:
    """Say whether a name at the root is none of a record: drafts that nobody reads, and the file system's own."""
    return name in {"_staging", "lost+found"} or re.fullmatch(r"_store\.[0-9a-f]{16}", name) is not None


# --- What must be there and what is there, in parts on disk ------------------------------------------------------

PARTS = 64
#: One line for each file. What must be there: `r` a record, `R` one that --since leaves unread, `l` a file of the
#: log whose content follows from the entries, `c` one that was read already. What is there: `f` a file, `o` not.


class Spill:
    """Lines in files, by the hash of the key that each is about."""

    def __init__(self, directory: Path, name: str) -> None:
        self._paths = [directory / f"{name}.{number}" for number in range(PARTS)]
        self.parts: list[list[bytes]] = [[] for _ in range(PARTS)]
        self._held = 0

    def add(self, key: bytes, line: bytes) -> None:
        self.parts[zlib.crc32(key) % PARTS].append(line)
        self.held(1)

    def held(self, lines: int) -> None:
        """Take note that so many lines were added to `parts`."""
        self._held += lines
        if self._held > LINES_IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        for path, part in zip(self._paths, self.parts, strict=True):
            if part:
                with path.open("ab") as file:
                    file.write(b"\n".join(part) + b"\n")
                part.clear()
        self._held = 0


def spilled(directory: Path, name: str, number: int) -> Iterator[list[bytes]]:
    """Yield the words of each line of one part."""
    with suppress(FileNotFoundError), (directory / f"{name}.{number}").open("rb") as file:
        for line in file:
            yield line.split()


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", re.ASCII)


def list_files(files: Iterable[tuple[str, str]], there: Spill, findings: Findings) -> None:
    """Write down the name of each file; one that no entry can have is a finding already."""
    parts, crc32, plain = there.parts, zlib.crc32, _NAME.fullmatch
    for count, (key, problem) in enumerate(files):
        if not plain(key):
            findings.add("extra", key, problem or "no record of ours has such a name")
            continue
        raw = key.encode()
        parts[crc32(raw) % PARTS].append((b"o " if problem else b"f ") + raw)
        if not count % 1000:
            there.held(1000)
    there.flush()


# --- The entries ------------------------------------------------------------------------------------------------

_TIME = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
_KEY = rb"(?!_log/|_staging/|_store\.)(?:[A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*"
_RECORD = re.compile(
    rb'^\{"at":"(' + _TIME + rb')",(?:"found":"(late|adopted)",)?"key":"(' + _KEY + rb')",'
    rb'"sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,17}),(?:"trusts":"([^"\\\n]+)",)?"v":1\}$',
    re.MULTILINE,
)
_SEAL = re.compile(
    rb'\{"at":"(' + _TIME + rb')","seal":\{"entries":([1-9][0-9]{0,17}),"feed":"[0-9-]*",'
    rb'"next":"(' + _TIME + rb')","upto":"(' + _TIME + rb')"\},"v":1\}'
)
#: Time, found, key, sha256, size, next key.
Record = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
#: What a record's key looks like.
_DAY, _ID = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_SHAPE = re.compile(
    rf"(?:{_DAY}|_acts/{_DAY}|_batches/{_DAY}|_(?:reviews|attempts)/{_DAY}/{_ID})/{_ID}\.json"
    r"|_attachments/([0-9a-f]{2})/\1[0-9a-f]{62}(?:\.[a-z0-9]{1,16}){0,2}",
    re.ASCII,
)


def moment(text: bytes) -> datetime:
    """Return the time; raises `ValueError` if there is none such, as on the 30th of February."""
    return datetime.fromisoformat(text.decode())


def written(at: datetime) -> bytes:
    return (at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z").encode()


def record_of(line: bytes) -> Record | None:
    """Return the record of an entry, also if it is not written in the one canonical way."""
    found = _RECORD.fullmatch(line)
    if found is None:
        try:
            value = json.loads(line)
            canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return None
        found = _RECORD.fullmatch(canonical)
    return (
        None if found is None else (found[1], found[2] or b"", found[3], found[4], found[5], found[6] or b"")
    )


@dataclass(frozen=True)
class Seal:
    """The last entry of a seal."""

    at: datetime
    entries: int
    #: Until when the next one is promised, and up to when every receipt is in the log.
    next: datetime
    upto: datetime

    @classmethod
    def of(cls, line: bytes) -> Seal | None:
        found = _SEAL.fullmatch(line)
        try:
            return found and cls(moment(found[1]), int(found[2]), moment(found[3]), moment(found[4]))
        except ValueError:
            return None


# --- The walk along the log -------------------------------------------------------------------------------------


def grouped(number: int) -> str:
    digits = f"{number:012d}"
    return "/".join(digits[place : place + 3] for place in range(0, 12, 3))


class Numbers:
    """The numbers that are the keys under a prefix, in order, each with what follows the digits."""

    def __init__(self, source: Source, prefix: str, tail: str = "") -> None:
        self._source = source
        self._last = re.compile(f"([0-9]{{3}})({tail})", re.ASCII)
        self._found = self._below(prefix.rstrip("/"), "")
        self._head = next(self._found, None)

    def _below(self, path: str, digits: str) -> Iterator[tuple[int, str]]:
        for name in self._source.names(path):
            if len(digits) < 9:  # noqa: PLR2004 - the last three follow
                if re.fullmatch("[0-9]{3}", name, re.ASCII):
                    yield from self._below(f"{path}/{name}", digits + name)
            elif last := self._last.fullmatch(name):
                yield int(digits + last[1]), last[2]

    def after(self, number: int) -> int | None:
        """Return the first that is larger."""
        while self._head is not None and self._head[0] <= number:
            self._head = next(self._found, None)
        return self._head and self._head[0]

    def until(self, number: float) -> Iterator[tuple[int, str]]:
        """Yield those that were not passed yet and are not larger."""
        while self._head is not None and self._head[0] <= number:
            head, self._head = self._head, next(self._found, None)
            yield head


@dataclass
class Newest:
    """The end of the log, as far as a checkpoint stands for it."""

    size: int = 0
    root: bytes = b""
    #: The file of the newest checkpoint that may be believed, and who signed it.
    note: bytes = b""
    note_size: int = 0
    signers: list[str] = field(default_factory=list)
    seal: Seal | None = None


class Walk:
    """From the first seal to the last: grows the tree, and says what must lie in the store."""

    def __init__(self, source: Source, signatures: Signatures, must: Spill, findings: Findings) -> None:
        self._source = source
        self._signatures = signatures
        self._must = must
        self._findings = findings
        self._edge = Edge()
        self._seals, self._checkpoints = Numbers(source, SEALS), Numbers(source, CHECKPOINTS)
        self._files: dict[str, bytes | None] = {}
        self._partial: dict[int, str] = {}
        self._before: Seal | None = None
        self._trusts: list[tuple[str, str]] = []
        self.newest = Newest()
        self.origin = ""
        #: Roots that somebody remembers, by size: who, and which.
        self.remembered: dict[int, list[tuple[str, bytes]]] = {}
        #: Files of records before this entry are not read.
        self.unread = 0
        self.seals = 0
        self.stopped = ""

    def begin_at(self, size: int, root: bytes) -> bool:
        """Begin behind what somebody remembers, from the tiles alone; they must lead to the same root."""
        edge = self._edge_of(size)
        if edge is None or edge.root() != root:
            return False
        self._edge = edge
        return True

    def steps(self) -> Iterator[tuple[int, bytes]]:
        """Go on from seal to seal; yield the size of the tree and the text that its checkpoint must have."""
        while (end := self._end()) is not None:
            start = self._edge.size
            note, root = self._checkpoint(end)
            lines = self._lines(start, end, root)
            if lines is None:
                if not self._skip(end, root):
                    self.stopped = f"the log cannot be read from entry {start} on"
                    return
            else:
                self._entries(start, lines)
            self.seals += 1
            self._settle(end, note)
            text = f"{self.origin}\n{end}\n{base64.b64encode(self._edge.root()).decode()}\n"
            yield end, text.encode()
        self._pending()

    # Where the next step ends, and what its checkpoint says.

    def _fetch(self, key: str, most: int) -> bytes | None:
        """Return a file of the log, read once for the step before and this one; None if it is of no use."""
        if key not in self._files:
            try:
                self._files[key] = self._source.read(key, most)
                self._findings.seen["bytes"] += len(self._files[key] or b"")
            except Absent:
                return None
            except Unusable as unusable:
                self._findings.add("inconsistent", key, str(unusable))
                self._files[key] = None
            self._findings.seen["files"] += 1
            self._must.add(key.encode(), b"c " + key.encode())
        return self._files[key]

    def _seal_lines(self, start: int) -> list[bytes]:
        """Return the lines of a seal's file; none if there is no such file, or it is not made of lines."""
        data = self._fetch(SEALS + grouped(start), SEAL_BYTES)
        lines = (data or b"").split(b"\n")
        return lines[:-1] if lines[-1] == b"" else []

    def _end(self) -> int | None:
        """Return where the next step ends: where the seal does, if anything else ends there too."""
        start = self._edge.size
        lines = self._seal_lines(start)
        claimed = start + len(lines)
        if lines and self._there(claimed):
            return claimed
        sizes = [self._checkpoints.after(start), self._seals.after(start)]
        return min((size for size in sizes if size is not None), default=None)

    def _there(self, size: int) -> bool:
        keys = {CHECKPOINTS + grouped(size): NOTE_BYTES, SEALS + grouped(size): SEAL_BYTES}
        return any(self._fetch(key, most) is not None or key in self._files for key, most in keys.items())

    def _checkpoint(self, size: int) -> tuple[Checkpoint | None, bytes | None]:
        """Return the checkpoint of a size, if it can be believed, and the root to hold the entries against."""
        key = CHECKPOINTS + grouped(size)
        data = self._fetch(key, NOTE_BYTES)
        if data is None:
            if key not in self._files:
                self._findings.add("missing", key, f"the log goes on behind size {size}, so it was there")
            return None, None
        note = checkpoint(data)
        if note is None:
            self._findings.add("bad_signature", key, "it is malformed: no signed note of a checkpoint")
            return None, None
        if not self._signatures.judge(key, note):
            return None, None
        self.origin = self.origin or note.origin
        wrong = ""
        if note.origin != self.origin:
            wrong = f"it is of the log {note.origin}, not {self.origin}"
        elif note.size != size:
            wrong = f"it is of size {note.size}"
        if wrong:
            self._findings.add("inconsistent", key, wrong)
            return None, None
        return note, note.root

    # The entries of a step: the seal has them, the bundles have them again, and the tiles have their hashes.

    def _lines(self, start: int, end: int, root: bytes | None) -> list[bytes | None] | None:
        """Return the entries that lead to the root, and grow the tree by them; None if there are none at all."""
        key, place = SEALS + grouped(start), f"entries {start} to {end - 1}"
        sealed: list[bytes | None] = [*self._seal_lines(start)]
        if len(sealed) == end - start and self._grown(sealed, root):
            return sealed
        bundled = self._bundled(start, end)
        if key not in self._files:
            self._findings.add("missing", key, f"{place} were sealed in it")
        if bundled is not None and self._grown(bundled, root):
            self._blame(key, f"it does not hold {place} as they are in the tree")
            return bundled
        leaves = self._tiled(start, end)
        if leaves is not None:
            by_hash = {leaf_hash(line): line for line in [*sealed, *(bundled or [])] if line is not None}
            mixed = [by_hash.get(leaf) for leaf in leaves]
            if self._grown(mixed, root, leaves):
                self._blame(key, f"it does not hold {place} as they are in the tree")
                for index, line in enumerate(mixed, start):
                    if line is None:
                        self._findings.add(
                            "inconsistent", key, f"entry {index} is neither in it nor in a bundle"
                        )
                return mixed
        if root is not None:
            told = (
                "what its entries give" if len(sealed) == end - start else "what is left of its entries gives"
            )
            self._findings.add("inconsistent", CHECKPOINTS + grouped(end), f"its root is not {told}")
        for lines in (sealed, bundled):
            if lines is not None and len(lines) == end - start and self._grown(lines, None):
                return lines
        self._blame(key, f"it does not hold {place}")
        return None

    def _blame(self, seal: str, detail: str) -> None:
        if self._files.get(seal) is not None:
            self._findings.add("inconsistent", seal, detail)

    def _grown(
        self, lines: Sequence[bytes | None], root: bytes | None, leaves: Sequence[bytes] | None = None
    ) -> bool:
        """Grow the tree by these entries if that leads to the root, or if no root is known."""
        edge = self._edge.copy()
        edge.grow(leaves or [leaf_hash(line or b"") for line in lines], lines)
        if root is not None and edge.root() != root:
            return False
        self._edge = edge
        return True

    def _bundled(self, start: int, end: int) -> list[bytes | None] | None:
        lines: list[bytes] = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            bundle = self._either("entries", number, end, BUNDLE_BYTES)
            lines += unpacked(bundle or b"")
            if len(lines) < min(end, (number + 1) * WIDTH) - start // WIDTH * WIDTH:
                return None
        return list(lines[start % WIDTH :][: end - start])

    def _tiled(self, start: int, end: int) -> list[bytes] | None:
        tiles = [
            self._either(0, number, end, TILE_BYTES) or b""
            for number in range(start // WIDTH, -(-end // WIDTH))
        ]
        if any(len(tile) != WIDTH * HASH for tile in tiles[:-1]):
            return None
        leaves = split(b"".join(tiles))[start % WIDTH :][: end - start]
        return leaves if len(leaves) == end - start else None

    def _either(self, level: int | str, number: int, end: int, most: int) -> bytes | None:
        """Return a tile or bundle as it was at a size, or as it is now that it is full."""
        width = min(WIDTH, end - number * WIDTH)
        for key in dict.fromkeys((tile_path(level, number, width), tile_path(level, number))):
            with suppress(Absent, Unusable):
                return self._source.read(key, most)
        return None

    def _edge_of(self, size: int) -> Edge | None:
        """Return the right edge of a tree from its tiles, not proven; None if they are not all there."""
        edge, top = Edge(), max(0, size.bit_length() - 1) // 8
        edge.size, edge.rows = size, [[] for _ in range(top + 1)]
        for level in range(top, -1, -1):
            width = (size >> 8 * level) % WIDTH
            if not width:
                continue
            try:
                tile = self._source.read(tile_path(level, size >> 8 * (level + 1), width), TILE_BYTES)
            except (Absent, Unusable):
                return None
            row = edge.rows[level] = split(tile)
            if len(row) != width:
                return None
            place = 0
            for height in range(7, -1, -1):
                if width >> height & 1:
                    below = Edge()
                    below.grow(row[place : place + (1 << height)], [b""] * (1 << height))
                    edge.stack.append(below.root())
                    place += 1 << height
        lines = self._bundled(size // WIDTH * WIDTH, size) if size % WIDTH else []
        known = lines or [None] * (size % WIDTH)
        pairs = zip(known, edge.rows[0], strict=True)
        edge.lines = [line if line is not None and leaf_hash(line) == leaf else None for line, leaf in pairs]
        return edge

    def _skip(self, end: int, root: bytes | None) -> bool:
        """Go on behind entries that are lost, if the tiles lead to the checkpoint's root."""
        edge = self._edge_of(end)
        if edge is None or root is None or edge.root() != root:
            return False
        self._edge, self._before = edge, None
        return True

    # What follows from the entries.

    def _entries(self, start: int, lines: Sequence[bytes | None]) -> None:
        place, key = start + len(lines) - 1, SEALS + grouped(start)
        seal = Seal.of(lines[-1] or b"")
        if seal is None or seal.entries != len(lines):
            self._findings.add("inconsistent", key, f"its last line, entry {place}, is not the seal's own")
        else:
            self._times(key, seal)
        if None not in lines:
            found: list[Record] = _RECORD.findall(b"\n".join(line or b"" for line in lines[:-1]))
            if len(found) == len(lines) - 1:
                self._records(start, enumerate(found, start), seal)
                self._before = seal
                return
        read = [(index, record_of(line or b"")) for index, line in enumerate(lines[:-1], start)]
        for index, record in read:
            if record is None:
                self._findings.add("inconsistent", key, f"entry {index} is none of a record")
        self._records(start, ((index, record) for index, record in read if record is not None), seal)
        self._before = seal

    def _times(self, key: str, seal: Seal) -> None:
        before, slack = self._before, timedelta(seconds=SLACK)
        if seal.upto > seal.at + slack:
            self._findings.add("clock", key, f"it is of {iso(seal.at)} and speaks for {iso(seal.upto)}")
        if before is None:
            return
        if seal.at < before.at - slack:
            self._findings.add(
                "clock", key, f"it is of {iso(seal.at)}, and the one before of {iso(before.at)}"
            )
        if seal.at > before.next + timedelta(seconds=GAP):
            late = f"it is of {iso(seal.at)}, and was promised for {iso(before.next)}"
            self._findings.add("gap", key, f"{late}; nothing of the time between is proven")

    def _records(self, start: int, records: Iterable[tuple[int, Record]], seal: Seal | None) -> None:
        slack = timedelta(seconds=SLACK)
        lowest = written(self._before.upto - slack) if self._before else b"0"
        highest = written(seal.at + slack) if seal else b"9"
        parts, unread, count = self._must.parts, self.unread, 0
        for index, (at, found, key, sha256, size, trusts) in records:
            if found or trusts:
                self._remark(f"entry {index}, seal {grouped(start)}", found, key.decode(), trusts)
            if not (found or lowest <= at <= highest):
                detail = f"it is of {at.decode()}, not between {lowest.decode()} and {highest.decode()}"
                place = f"entry {index}, seal {grouped(start)}"
                self._findings.add("clock", key.decode(), f"{detail}; {place}")
            flag = b"R" if index < unread else b"r"
            parts[zlib.crc32(key) % PARTS].append(
                b"%b %b %b %b %d %d" % (flag, key, sha256, size, index, start)
            )
            count += 1
        self._findings.seen["records"] += count
        self._must.held(count)

    def _remark(self, place: str, found: bytes, key: str, trusts: bytes) -> None:
        if found == b"late":
            self._findings.add("late", key, f"it lay in the store, and no receipt told of it; {place}")
        elif found:
            self._findings.seen["adopted"] += 1
        if trusts and key.startswith("_acts/"):
            self._trusts.append((key, trusts.decode("utf-8", "replace")))

    def _settle(self, end: int, note: Checkpoint | None) -> None:
        """Say what must lie in the log now, and take note of how far it goes."""
        root = self._edge.root()
        for key, content in self._edge.full:
            self._derived(key, content, end)
        self._edge.full.clear()
        for level, (key, content) in enumerate(self._edge.partial()):
            if self._partial.get(level) != key:
                self._partial[level] = key
                self._derived(key, content, end)
        if note is not None:
            if self._signatures.given and note.signatures:
                for key, text in self._trusts:
                    if wrong := self._signatures.introduce(text):
                        self._findings.add("inconsistent", key, wrong)
            self._trusts.clear()
            if note.root == root:
                data = self._files[CHECKPOINTS + grouped(end)]
                self.newest.note, self.newest.note_size = data or b"", end
                self.newest.signers = [signature.label for signature in note.signatures]
        self.newest.size, self.newest.root = end, root
        self.newest.seal = self._before or self.newest.seal
        for who, remembered in self.remembered.pop(end, []):
            if remembered != root:
                self._findings.add("inconsistent", who, f"at size {end} it has another root than the log")
        kept = (SEALS + grouped(end), CHECKPOINTS + grouped(end))
        self._files = {key: self._files[key] for key in kept if key in self._files}

    def _derived(self, key: str, content: bytes | None, end: int) -> None:
        raw = key.encode()
        if content is None:
            self._must.add(raw, b"c " + raw)
        else:
            digest = hashlib.sha256(content).hexdigest().encode()
            self._must.add(raw, b"l %b %b %d %d 0" % (raw, digest, len(content), end))

    def _pending(self) -> None:
        """Look at a seal without a checkpoint: a sealer is at work, or was killed there."""
        start = self._edge.size
        lines, key = self._seal_lines(start), SEALS + grouped(start)
        if key not in self._files:
            return
        seal = Seal.of(lines[-1]) if lines else None
        if seal is None or seal.entries != len(lines):
            self._findings.add("inconsistent", key, "it does not end with the seal's own entry")
            return
        self._findings.seen["pending_entries"] += len(lines)
        end = start + len(lines)
        checkpoint_key = CHECKPOINTS + grouped(end)
        known = seal.at < datetime.now(UTC) - timedelta(seconds=GRACE)
        if known:
            detail = (
                f"nothing proves the entries of the seal of {iso(seal.at)}; the next sealer will write it"
            )
            self._findings.add("missing", checkpoint_key, detail)
            self._entries(start, lines)
        edge = self._edge.copy()
        edge.grow([leaf_hash(line) for line in lines], lines)
        for path, content in [*edge.full, *edge.partial(), (checkpoint_key, None)]:
            self._derived(path, content if known else None, end)


def split(tile: bytes) -> list[bytes]:
    return [tile[place : place + HASH] for place in range(0, len(tile), HASH)]


def iso(at: datetime) -> str:
    return written(at).decode()


# --- What others say of the log: witnesses and time stamps --------------------------------------------------------


class Evidence:
    """The files beside the checkpoints that somebody else has signed."""

    def __init__(self, source: Source, witnesses: Sequence[Vkey], must: Spill, findings: Findings) -> None:
        self._source = source
        self._witnesses = {witness.key_id.hex(): witness for witness in witnesses}
        self._must = must
        self._findings = findings
        self._cosigned = Numbers(source, COSIGNATURES, "_[0-9a-f]{8}")
        self._stamped = Numbers(source, TIMESTAMPS, r"\.tsr")
        #: The newest size that each witness has signed, and when.
        self.newest: dict[str, tuple[int, int]] = {}
        self._probes: list[tuple[int, bytes]] = []

    def hold(self, size: int, text: bytes) -> None:
        """Hold what is said of a size, and of sizes between this and the one before, against the log."""
        if not self._source.lists and self._witnesses:
            self._probes = [*self._probes[1 - PROBES :], (size, text)]
        for at, rest in self._cosigned.until(size):
            self._cosignature(at, rest, text if at == size else None)
        for at, rest in self._stamped.until(size):
            self._timestamp(at, rest, text if at == size else None)

    def finish(self, size: int) -> None:
        """Look at what is said of sizes that the log does not have (any more)."""
        for probed, text in self._probes:
            for witness in self._witnesses:
                self._cosignature(probed, f"_{witness}", text)
        for at, rest in self._cosigned.until(float("inf")):
            self._cosignature(at, rest, None, size)
        for at, rest in self._stamped.until(float("inf")):
            self._timestamp(at, rest, None)
        for key_id, named in self._witnesses.items():
            if key_id not in self.newest:
                detail = f"{named.label} has signed nothing here, so it cannot tell whether the log was rolled back"
                self._findings.add("missing", COSIGNATURES, detail)

    def _cosignature(self, at: int, rest: str, text: bytes | None, size: int | None = None) -> None:
        key = COSIGNATURES + grouped(at) + rest
        try:
            note = checkpoint(self._source.read(key, NOTE_BYTES))
        except Absent:
            return
        except Unusable as unusable:
            self._covered(key)
            self._findings.add("bad_signature", key, str(unusable))
            return
        witness = self._witnesses.get(rest[1:])
        wrong = self._wrong(note, rest[1:], at, witness)
        if note is None or wrong:
            self._covered(key)
            self._findings.add("bad_signature", key, wrong)
            return
        self._findings.seen["cosignatures" if witness else "unknown_cosignatures"] += 1
        if witness:
            signed_at = int.from_bytes(note.signatures[0].value[:8], "big")
            self.newest[rest[1:]] = max(self.newest.get(rest[1:], (0, 0)), (at, signed_at))
        if text is not None and text != note.text:
            self._covered(key)
            self._findings.add("inconsistent", key, f"it is of another log than this one of size {at}")
        elif text is not None:
            self._covered(key)
        elif witness:
            self._covered(key)
            if size is None:
                self._findings.add("inconsistent", key, f"the log has no checkpoint of size {at}")
            else:
                detail = f"{witness.label} saw size {at}, and the log has {size}"
                self._findings.add("rolled_back", key, detail)

    def _wrong(self, note: Checkpoint | None, key_id: str, size: int, witness: Vkey | None) -> str:
        if note is None or len(note.signatures) != 1:
            return "it is malformed: no checkpoint with one signature"
        signature = note.signatures[0]
        if signature.key_id.hex() != key_id or len(signature.value) != 8 + 64 or note.size != size:
            return "it is malformed: its signature or size is not the one that its name tells"
        if witness is None:
            return ""
        signed_at = int.from_bytes(signature.value[:8], "big")
        message = b"cosignature/v1\ntime %d\n" % signed_at + note.text
        if signature.name != witness.name or not witness.signed(signature.value[8:], message):
            return f"the signature of {witness.label} does not verify"
        return ""

    def _timestamp(self, at: int, rest: str, text: bytes | None) -> None:
        key = TIMESTAMPS + grouped(at) + rest
        if text is None:
            return  # of no checkpoint: it stays an extra file
        self._covered(key)
        try:
            token = self._source.read(key, TOKEN_BYTES)
        except (Absent, Unusable) as unusable:
            self._findings.add("inconsistent", key, str(unusable))
            return
        self._findings.seen["timestamps"] += 1
        # The hash stands in the token as an OCTET STRING of 32 bytes.
        if not whole_der(token) or b"\x04\x20" + hashlib.sha256(text).digest() not in token:
            self._findings.add("inconsistent", key, f"it is no time stamp of the checkpoint of size {at}")

    def _covered(self, key: str) -> None:
        self._findings.seen["files"] += 1
        self._must.add(key.encode(), b"c " + key.encode())


def whole_der(token: bytes) -> bool:
    """Say whether this is one DER sequence, no byte more or less."""
    if len(token) < 4 or token[0] != 0x30:  # noqa: PLR2004 - SEQUENCE
        return False
    octets = token[1] & 0x7F if token[1] & 0x80 else 0
    length = int.from_bytes(token[2 : 2 + octets], "big") if octets else token[1]
    return len(token) == 2 + octets + length


# --- One part of the files --------------------------------------------------------------------------------------


class Part:
    """Holds what must be there against what is there, for the keys of one part."""

    def __init__(self, source: Source, directory: Path, findings: Findings) -> None:
        self._source = source
        self._directory = directory
        self._findings = findings
        task = json.loads((directory / "task").read_text())
        #: Seconds since 1970: the newest seal's time (None: there is none), and when this verification began.
        self._sealed_at: float | None = task["sealed_at"]
        self._began_at: float = task["began_at"]

    def judge(self, number: int) -> None:
        must: dict[bytes, list[bytes]] = {}
        for words in spilled(self._directory, "must", number):
            key = words[1]
            if key in must and words[0] in b"rR":
                places = f"entries {must[key][4].decode()} and {words[4].decode()}"
                self._findings.add("duplicate", key.decode(), f"{places} tell of it")
            else:
                must[key] = words
        for flag, key in spilled(self._directory, "there", number):
            if key not in must:
                self._stray(key.decode(), regular=flag == b"f")
        for key in sorted(must):
            if must[key][0] in b"rl":
                self._file(*must[key])

    def _file(self, flag: bytes, raw: bytes, sha256: bytes, size: bytes, index: bytes, start: bytes) -> None:
        key, expected = raw.decode(), int(size)
        try:
            actual, digest = self._source.digest(key, expected)
        except Absent:
            self._told("missing", flag, key, "", index, start)
            return
        except Unusable as unusable:
            self._told("modified", flag, key, f"{unusable}; ", index, start)
            return
        seen = self._findings.seen
        seen["files"] += 1
        seen["bytes"] += actual
        if actual != expected:
            more = "more" if actual > expected else str(actual)
            self._told("modified", flag, key, f"it has {more} bytes, not {expected}; ", index, start)
        elif digest.hex() != sha256.decode():
            self._told(
                "modified", flag, key, f"it has another SHA-256 than {sha256.decode()}; ", index, start
            )

    def _told(self, kind: str, flag: bytes, key: str, detail: str, index: bytes, start: bytes) -> None:
        if flag == b"r":
            place = f"entry {int(index)}, seal {grouped(int(start))}"
        else:
            kind = "missing" if kind == "missing" else "inconsistent"
            place = f"it follows from the entries before size {int(index)}"
        self._findings.add(kind, key, detail + place)

    def _stray(self, key: str, *, regular: bool) -> None:
        add = self._findings.add
        if not regular:
            add("extra", key, "it is no regular file, and no entry tells of it")
            return
        if key.startswith(LOG):
            add("extra", key, "it belongs to nothing in the log")
            return
        if not _SHAPE.fullmatch(key):
            add("extra", key, "no record of ours has such a name, and no entry tells of it")
            return
        try:
            modified_at = self._source.modified_at(key)
        except Absent:
            return  # it was there for a moment
        except Unusable as unusable:
            add("extra", key, str(unusable))
            return
        when = f"no entry tells of it; it was written at {stamp(modified_at)}"
        if modified_at > self._began_at + GRACE and modified_at > time.time() + GRACE:
            add("unsealed", key, f"{when}, which lies in the future")
        elif modified_at > self._began_at - GRACE:
            self._findings.seen["young"] += 1
        elif self._sealed_at is None or modified_at > self._sealed_at:
            add("unsealed", key, f"{when}, after the newest seal")
        else:
            add("extra", key, f"{when}, before the newest seal")


def stamp(seconds: float) -> str:
    try:
        return iso(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s after 1970"


# --- Several processes ------------------------------------------------------------------------------------------


def run_part(directory: str, what: str, share: str) -> int:
    """Do the share of one process: list the records, or judge every n-th part."""
    place = Path(directory)
    task = json.loads((place / "task").read_text())
    findings = Findings(place / f"findings.{what}.{share.partition('/')[0]}")
    source = opened(task["store"])
    if what == "list":
        list_files(records_of(source), Spill(place, "there"), findings)
    else:
        first, _, step = share.partition("/")
        part = Part(source, place, findings)
        for number in range(int(first), PARTS, int(step)):
            part.judge(number)
    findings.close()
    source.close()
    return CLEAN


def records_of(source: Source) -> Iterator[tuple[str, str]]:
    """Yield every file outside the log."""
    for key, problem in source.files(""):
        if not key.startswith(LOG) and key != IDENTITY and not passed_over(key):
            yield key, problem


class Processes:
    """Our own file run again, several times at once; or its work done here, if that is not worth it."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self._directory = directory
        self._jobs = jobs if Path(globals().get("__file__", "")).is_file() else 1
        self._running: list[subprocess.Popen[str]] = []

    def start(self, what: str, *, worth_it: bool) -> None:
        shares = self._jobs if what == "parts" else 1
        if self._jobs == 1 or not worth_it:
            run_part(str(self._directory), what, "0/1")
            return
        for share in range(shares):
            command = [
                sys.executable,
                "-I",
                __file__,
                "_part",
                str(self._directory),
                what,
                f"{share}/{shares}",
            ]
            self._running.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
            )

    def wait(self) -> None:
        for process in self._running:
            _, words = process.communicate()
            if process.returncode == AWAY:
                raise Away(words.strip().removeprefix("error: "))
            if process.returncode:
                raise RuntimeError(f"a process of its own ended with {process.returncode}: {words[-500:]}")
        self._running.clear()

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


# --- The whole store --------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What `verify` says, apart from the findings themselves."""

    store: str
    origin: str = ""
    newest: Newest = field(default_factory=Newest)
    seals: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    proven: list[str] = field(default_factory=list)
    not_looked_at: list[str] = field(default_factory=list)
    witnesses: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        seal, seen = self.newest.seal, self.seen
        return {
            "store": self.store,
            "origin": self.origin,
            "size": self.newest.size,
            "root": base64.b64encode(self.newest.root).decode(),
            "seals": self.seals,
            "newest_at": iso(seal.at) if seal else None,
            "next_promised_by": iso(seal.next) if seal else None,
            "signed_by": self.newest.signers,
            "witnesses": self.witnesses,
            "records": seen["records"],
            "adopted": seen["adopted"],
            "not_sealed_yet": seen["young"],
            "files_read": seen["files"],
            "bytes_read": seen["bytes"],
            "proven": self.proven,
            "not_looked_at": self.not_looked_at,
            "findings": dict(self.counts),
            "seconds": round(self.seconds, 2),
        }

    def text(self) -> Iterator[str]:
        told = self.summary()
        yield f"store          {self.store}"
        yield f"origin         {self.origin or 'not known'}"
        yield f"log            {told['size']:,} entries, {told['records']:,} of records, in {self.seals:,} seals"
        yield f"newest         checkpoint of {told['newest_at'] or 'no time: there is none'}"
        if self.newest.size:
            yield f"root           {told['root']}"
        yield f"signed by      {', '.join(told['signed_by']) or 'nobody'}"
        for witness in self.witnesses:
            yield f"witness        {witness}"
        for index, proven in enumerate(self.proven):
            yield f"{'proven' if not index else '':<15}{proven}"
        yield f"adopted        {told['adopted']:,} records that lay there before the log began"
        if told["not_sealed_yet"]:
            yield f"not sealed yet {told['not_sealed_yet']:,} records younger than {GRACE} s"
        yield f"read           {told['files_read']:,} files, {told['bytes_read']:,} bytes, {self.seconds:.1f} s"
        for index, left in enumerate(self.not_looked_at):
            yield f"{'not looked at' if not index else '':<15}{left}"
        counts = ", ".join(f"{human(kind)} {self.counts[kind]:,}" for kind in KINDS if self.counts[kind])
        yield f"findings       {counts or 'none'}"


def human(kind: str) -> str:
    return kind.replace("_", " ")


class Verification:
    """One run of `verify`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._keys = vkeys(options.key, ED25519)
        self._witnesses = vkeys(options.witness, COSIGNATURE)
        self._since = remembered(options.since) if options.since else None
        state = Path(options.state) if options.state else None
        self._state = remembered(options.state) if state and os.path.lexists(state) else None
        self.report = Report(options.store)

    def run(self, tell: Callable[[Iterator[list[str]], Report], None]) -> int:
        """Verify, and hand what was found to `tell`; return the exit code."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="verifier-") as scratch:
            place = Path(scratch)
            processes = Processes(place, self._options.jobs)
            source = opened(self._options.store)
            try:
                self._verify(source, place, processes)
            finally:
                processes.kill()
                source.close()
            self.report.seconds = time.monotonic() - began
            tell(self._findings(place), self.report)
        return FOUND if self.report.counts else CLEAN

    def _verify(self, source: Source, place: Path, processes: Processes) -> None:
        task = {"store": self._options.store, "began_at": time.time(), "sealed_at": None}
        (place / "task").write_text(json.dumps(task))
        findings = Findings(place / "findings.log.0")
        store_id = self._identity(source, findings)
        must, there = Spill(place, "must"), Spill(place, "there")
        # First what lies in the log, then the log: what a sealer writes meanwhile is no extra file.
        list_files(source.files(LOG.rstrip("/")), there, findings)
        if source.lists:
            processes.start("list", worth_it=self._many(source))
        walk = self._walk(source, must, findings)
        must.flush()
        self.report.origin = walk.origin or (f"rmos-runs/{store_id}" if store_id else "")
        if walk.origin and store_id and walk.origin != f"rmos-runs/{store_id}":
            detail = f"it is the store {store_id}, and the log is that of {walk.origin}"
            findings.add("inconsistent", IDENTITY, detail)
        processes.wait()
        seal = walk.newest.seal
        task["sealed_at"] = seal.at.timestamp() if seal else None
        (place / "task").write_text(json.dumps(task))
        processes.start("parts", worth_it=walk.newest.size > 1000)  # noqa: PLR2004 - a start costs 50 ms
        processes.wait()
        self._remember(walk, findings)
        findings.close()
        self._conclude(source, walk)

    def _many(self, source: Source) -> bool:
        return source.names("_log/tile/1") != []

    def _identity(self, source: Source, findings: Findings) -> str:
        """Return the store's id; its file is no entry, but all that it holds follows from the id."""
        try:
            data = source.read(IDENTITY, IDENTITY_BYTES)
        except Absent:
            if not source.names("_log") and source.lists:
                raise Away(
                    f"{self._options.store} is no store: it holds neither {IDENTITY} nor a log"
                ) from None
            findings.add("missing", IDENTITY, "a store has one at its root")
            return ""
        except Unusable as unusable:
            findings.add("modified", IDENTITY, str(unusable))
            return ""
        try:
            store_id = json.loads(data)["store_id"]
            if re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", store_id):
                made = datetime(1970, 1, 1) + timedelta(milliseconds=int(store_id[:12], 16))  # noqa: DTZ001 - in UTC
                fields = {"created_at_utc": made.isoformat() + "Z", "store_id": store_id}
                if json.dumps(fields, separators=(",", ":")).encode() != data:
                    findings.add("modified", IDENTITY, f"it is not what was written for the store {store_id}")
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            findings.add("modified", IDENTITY, "it is no identity of a store")
            return ""
        return str(store_id)

    def _walk(self, source: Source, must: Spill, findings: Findings) -> Walk:
        signatures = Signatures(self._keys, findings)
        walk = Walk(source, signatures, must, findings)
        evidence = Evidence(source, self._witnesses, must, findings)
        for name, note in ((self._options.state, self._state), (self._options.since, self._since)):
            if note is not None and note.size:
                walk.remembered.setdefault(note.size, []).append((name, note.root))
        since = self._since
        if since is not None:
            walk.unread = since.size
            if not source.lists and since.size and walk.begin_at(since.size, since.root):
                walk.remembered.pop(since.size)
        for size, text in walk.steps():
            evidence.hold(size, text)
        newest = walk.newest
        if since is not None and not newest.size and walk.begin_at(since.size, since.root):
            newest.size, newest.root = since.size, since.root
        evidence.finish(newest.size)
        self._compare(walk, findings)
        if signatures.given and newest.size and not newest.signers and not findings.counts["unknown_key"]:
            detail = "no checkpoint is signed, and a key was given"
            findings.add("unknown_key", CHECKPOINTS + grouped(newest.size), detail)
        if signatures.given and not newest.size:
            findings.add("missing", CHECKPOINTS, "there is no checkpoint at all, and a key was given")
        if self._options.live and newest.seal:
            late = datetime.now(UTC) - newest.seal.next - timedelta(seconds=GAP)
            if late > timedelta():
                detail = (
                    f"the newest seal, of {iso(newest.seal.at)}, promised the next by {iso(newest.seal.next)}"
                )
                findings.add("gap", CHECKPOINTS + grouped(newest.size), detail)
        self._say(signatures, evidence)
        return walk

    def _compare(self, walk: Walk, findings: Findings) -> None:
        """Hold what is remembered of sizes that the walk did not come to against the log."""
        for name, note in ((self._options.state, self._state), (self._options.since, self._since)):
            if note is not None and walk.origin and note.origin != walk.origin:
                findings.add(
                    "inconsistent", name, f"it is a checkpoint of {note.origin}, not of {walk.origin}"
                )
        for size, notes in walk.remembered.items():
            for who, _ in notes:
                if size > walk.newest.size:
                    findings.add(
                        "rolled_back", who, f"it remembers size {size}, and the log has {walk.newest.size}"
                    )
                else:
                    findings.add("inconsistent", who, f"the log has no checkpoint of its size, {size}")

    def _say(self, signatures: Signatures, evidence: Evidence) -> None:
        left = self.report.not_looked_at
        if not signatures.given:
            left.append("signatures: no --key was given, so anybody could have written this log")
        if signatures.given and signatures.unsigned:
            left.append(
                f"the first {signatures.unsigned:,} checkpoints are unsigned; later ones cover their entries"
            )
        for witness in self._witnesses:
            size, at = evidence.newest.get(witness.key_id.hex(), (0, 0))
            if size:
                self.report.witnesses.append(f"{witness.label} saw size {size:,} at {stamp(at)}")

    def _remember(self, walk: Walk, findings: Findings) -> None:
        """Write the newest checkpoint into the state file, unless the log contradicts what stands there."""
        wrong = sum(
            findings.counts[kind] for kind in ("inconsistent", "rolled_back", "bad_signature", "unknown_key")
        )
        if (
            not self._options.state
            or wrong
            or walk.newest.note_size != walk.newest.size
            or not walk.newest.note
        ):
            return
        path = Path(self._options.state)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                file.write(walk.newest.note)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Usage(f"{path} cannot be written: {said(error)}") from None

    def _conclude(self, source: Source, walk: Walk) -> None:
        report, options = self.report, self._options
        report.newest, report.seals = walk.newest, walk.seals
        left = report.not_looked_at
        if walk.unread:
            left.append(f"the files of the first {walk.unread:,} entries: --since was given")
        if not source.lists:
            left.append("extra and unsealed files: over an address nothing can be listed")
        if not options.witness and not options.state and not options.since:
            left.append("whether the log was once longer: neither --state, --since nor --witness was given")
        if not options.live:
            left.append("whether the newest seal is late: --live was not given")
        if walk.stopped:
            left.append(walk.stopped)

    def _findings(self, place: Path) -> Iterator[list[str]]:
        """Yield kind, key and detail of each finding, in order unless there are very many."""
        paths = sorted(place.glob("findings.*"))
        report = self.report
        for path in paths:
            totals = totals_of(path)
            report.counts.update(totals["counts"])
            report.seen.update(totals["seen"])
        if self.report.seen["unknown_cosignatures"]:
            count = self.report.seen["unknown_cosignatures"]
            report.not_looked_at.append(
                f"signatures of {count:,} cosigned checkpoints: their witness was not named"
            )
        if self.report.seen["timestamps"]:
            count = self.report.seen["timestamps"]
            report.not_looked_at.append(
                f"signatures of {count:,} time stamps: openssl ts -verify checks them"
            )
        report.proven = list(self._proven())
        found = found_in(paths)
        if report.counts.total() > LINES_IN_MEMORY:
            return found
        return iter(sorted(found, key=lambda finding: (KINDS.index(finding[0]), finding[1:])))

    def _proven(self) -> Iterator[str]:
        report = self.report
        if not report.newest.size:
            return
        counts = report.counts
        if not counts["inconsistent"]:
            yield f"each of {report.seals:,} checkpoints extends the one before, up to the newest"
        if self._keys and not counts["bad_signature"] and not counts["unknown_key"]:
            yield "they are signed by the key that was given, or by one that it introduced"
        wrong = counts["modified"] + counts["missing"]
        if not wrong:
            yield "every record that was looked at holds the bytes of its entry"
        if self._options.since and not counts["inconsistent"] and not counts["rolled_back"]:
            yield f"the log is the one of {self._options.since}, grown"


def remembered(path: str) -> Checkpoint:
    data = local_text(path, NOTE_BYTES).encode("utf-8", "surrogateescape")
    note = checkpoint(data)
    if note is None:
        raise Usage(f"{path} is no checkpoint; give the file of one, as --state writes it")
    return note


def local_text(path: str, most: int) -> str:
    """Return the text of a file of the caller's own."""
    try:
        with Path(path).open("rb") as file:
            return file.read(most).decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:
        raise Usage(f"{path} cannot be read: {error}") from None


# --- One record by its proof (C2SP tlog-proof) --------------------------------------------------------------------

_PROOF = re.compile(
    rb"c2sp\.org/tlog-proof@v1\n(?:extra ([A-Za-z0-9+/]+=*)\n)?index (0|[1-9][0-9]{0,17})\n"
    rb"((?:[A-Za-z0-9+/]{43}=\n){0,63})\n"
)


def check(proof: bytes, file: Path, keys: Sequence[Vkey]) -> tuple[list[list[str]], str]:
    """Return what is wrong with a file by its proof, and what it is if nothing is."""
    found = _PROOF.match(proof)
    note = checkpoint(proof[found.end() :]) if found else None
    if found is None or note is None:
        return [["inconsistent", "proof", "it is no proof in the form of c2sp.org/tlog-proof@v1"]], ""
    entry = unbase64((found[1] or b"").decode()) or b""
    index, path = int(found[2]), [unbase64(line.decode()) or b"" for line in found[3].split()]
    record = record_of(entry)
    if record is None:
        return [["inconsistent", "proof", "it holds no entry of a record"]], ""
    at, how, key, sha256, size, _ = record
    wrong: list[list[str]] = []
    if not proves(leaf_hash(entry), index, note.size, path, note.root):
        wrong.append(
            ["inconsistent", "proof", f"it does not lead from entry {index} to the checkpoint's root"]
        )
    wrong += unsigned(note, keys)
    wrong += differs(file, key.decode(), sha256.decode(), int(size))
    found_late = f" (found {how.decode()}: when it was written is not proven)" if how else ""
    who = ", ".join(signature.label for signature in note.signatures) or "nobody"
    caveat = "" if keys else "; no --key was given, so anybody could have made this proof"
    return wrong, (
        f"this is the record of {key.decode()}, in the log since {at.decode()}{found_late}, unchanged\n"
        f"entry {index} of {note.origin}, in the checkpoint of size {note.size}, signed by {who}{caveat}"
    )


def unsigned(note: Checkpoint, keys: Sequence[Vkey]) -> list[list[str]]:
    """Return what is wrong with a single checkpoint's signatures; nothing if no key is given."""
    known = {(key.name, key.key_id): key for key in keys}
    good = False
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key and not key.signed(signature.value, note.text):
            return [["bad_signature", "proof", f"the signature of {key.label} does not verify"]]
        good = good or key is not None
    if good or not keys:
        return []
    signers = ", ".join(signature.label for signature in note.signatures) or "nobody"
    return [["unknown_key", "proof", f"its checkpoint is signed by {signers}, not by a key that was given"]]


def differs(file: Path, key: str, sha256: str, size: int) -> list[list[str]]:
    total, hashed = 0, hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while total <= size and (piece := stream.read(PIECE)):
                total += len(piece)
                hashed.update(piece)
    except (OSError, ValueError) as error:
        raise Away(f"{file} cannot be read: {error}") from None
    if total != size:
        more = "more" if total > size else str(total)
        return [["modified", key, f"{file} has {more} bytes, and the record in the log has {size}"]]
    if hashed.hexdigest() != sha256:
        return [["modified", key, f"{file} has another SHA-256 than the record in the log, {sha256}"]]
    return []


# --- The command line -------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="verifier.py",
        description="Tell whether the records of a store were changed, removed, swapped, back-dated or added.",
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="verify|check")
    verify = commands.add_parser("verify", help="a whole store")
    verify.add_argument("store", metavar="STORE", help="its directory, or the http(s) address of its files")
    key = {"action": "append", "default": [], "metavar": "VKEY|FILE"}
    verify.add_argument("--key", **key, help="a public key of the log, or a file with one on each line")  # type: ignore[arg-type]
    verify.add_argument("--witness", **key, help="the public key of a witness whose word must be there")  # type: ignore[arg-type]
    verify.add_argument(
        "--since", metavar="CHECKPOINT_FILE", help="leave the files of records before it unread"
    )
    verify.add_argument(
        "--state", metavar="FILE", help="remember the newest checkpoint there, for the next time"
    )
    verify.add_argument("--live", action="store_true", help="the store is in use: a late seal is a gap")
    verify.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="processes (default: one for each core)"
    )
    one = commands.add_parser("check", help="one file by its proof, without the store")
    one.add_argument("proof", metavar="PROOF", type=Path)
    one.add_argument("file", metavar="FILE", type=Path)
    one.add_argument("--key", **key, help="a public key of the log, or a file with one on each line")  # type: ignore[arg-type]
    for command in (verify, one):
        command.add_argument("--json", action="store_true", help="print JSON")
    return whole


def tell_text(found: Iterator[list[str]], report: Report) -> None:
    for kind, key, detail in found:
        say(f"{human(kind)}: {key}: {detail}")
    for line in report.text():
        say(line)


def tell_json(found: Iterator[list[str]], report: Report) -> None:
    sys.stdout.write('{"findings":[')
    for number, finding in enumerate(found):
        told = dict(zip(("kind", "key", "detail"), finding, strict=True))
        sys.stdout.write(("," if number else "") + "\n" + json.dumps(told, ensure_ascii=False))
    say('],\n"summary":' + json.dumps(report.summary(), ensure_ascii=False) + "}")


def say(line: str) -> None:
    # Names in a store may hold what would steer a terminal, or end the line.
    sys.stdout.write("".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in line) + "\n")


def verify_command(options: argparse.Namespace) -> int:
    if options.jobs < 0:
        raise Usage("--jobs is 1 or more")
    options.jobs = options.jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return Verification(options).run(tell_json if options.json else tell_text)


def check_command(options: argparse.Namespace) -> int:
    keys = vkeys(options.key, ED25519)
    try:
        with options.proof.open("rb") as file:
            proof = file.read(PROOF_BYTES)
    except (OSError, ValueError) as error:
        raise Away(f"{options.proof} cannot be read: {error}") from None
    wrong, right = check(proof, options.file, keys)
    if options.json:
        found = [dict(zip(("kind", "key", "detail"), finding, strict=True)) for finding in wrong]
        say(json.dumps({"findings": found, "proven": None if wrong else right}, ensure_ascii=False))
    else:
        for kind, key, detail in wrong:
            say(f"{human(kind)}: {key}: {detail}")
        if not wrong:
            say(right)
    return FOUND if wrong else CLEAN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["_part"]:
            return run_part(*words[1:])
        options = parser().parse_args(words)
        return verify_command(options) if options.command == "verify" else check_command(options)
    except Usage as error:
        return failed(error, USAGE)
    except Away as error:
        return failed(error, AWAY)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        sys.stderr.close()
        return BROKEN
    except OSError as error:
        return failed(f"{error} (the temporary directory, {tempfile.gettempdir()}, may be full)", AWAY)
    except ImportError as error:
        return failed(f"{error}; signatures need it: pip install cryptography", USAGE)
    except Exception as error:  # noqa: BLE001 - a stranger is told what to do, not shown a traceback
        return failed(
            f"an error in this verifier: {type(error).__name__}: {error}; nothing is proven", BROKEN
        )


def failed(error: object, code: int) -> int:
    sys.stderr.write(f"error: {error}\n".encode("utf-8", "backslashreplace").decode())
    return code


if __name__ == "__main__":
    # So that the temporary directory and the other processes go, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
