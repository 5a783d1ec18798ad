"""Artifacts as plain files: published once, whole, synced before they are acknowledged.

A file is written and synced while it has no name, then linked to its name, then its directory is synced.
Never renamed: a rename overwrites, and lets the last of two racers win. Every directory below the root is
opened from its parent without following symbolic links, so a planted one cannot lead out of the root. Each
time the root is opened its identity is checked through the same descriptor, so what is written lands in this
store or nowhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rmos_shared.errors import CorruptArtifact, DurabilityUnknown, StoreUnavailable
from rmos_shared.store.base import PARTIAL, PIECE_BYTES, Head, KeyInvalid, Outcome, Space, Stamp, check_key
from rmos_shared.store.identity import IDENTITY_FILE, StoreIdentity, is_of_identity, read_identity
from rmos_shared.store.os_errors import PLANTED, UNREADABLE, store_error

#: Holds unpublished files where the file system refuses nameless ones. No reader sees the files that a killed
#: process leaves in it; they may be removed while no worker runs.
STAGING = "_staging"

#: What is read whole has at most so many bytes: four times the largest payload that a setting can allow, and
#: of the audit log as much as a seal may have. What is larger is none of ours, and would fill any memory.
_MOST_BYTES = 1 << 30
_LOG, _MOST_LOG_BYTES = "_log/", 1 << 26

_FILE_MODE = 0o440
_DIRECTORY_MODE = 0o750
#: Files of one ``create_many`` that are open at a time; with their directories, far below 1,024.
_GROUP = 100
#: Directories remembered as durable, at most.
_SETTLED_LIMIT = 10_000

#: Says whether an open file, whose size is given first, holds the very same bytes.
_Same = Callable[[int, int], bool]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
# O_NONBLOCK: opening a planted FIFO must not wait for its writer.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
#: What open(2) answers where O_TMPFILE is not known. ENOENT is not among them: it means that the
#: directory is gone.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR})


class LocalStore:
    """The artifact store as a directory tree on one POSIX file system (Linux).

    Safe for any number of processes and threads at once. Files get mode 0440 and directories 0750, less
    the umask. The root itself may be a symbolic link; nothing below it may.
    """

    def __init__(self, root: Path, *, store_id: str | None = None) -> None:
        """Use the store that ``root`` holds, without opening it yet; nothing makes it but ``init_store``.

        ``store_id`` is the identity that it must have; without one it is that of the store first found there.
        Every verb raises ``StoreUnavailable`` while the root holds another store or none.
        """
        self._root = root
        self._store_id = store_id
        #: Device and inode of the identity file that was read last.
        self._seen: tuple[int, int] | None = None
        #: Directories whose names this process has synced.
        self._settled: set[str] = set()
        self._healthy = True

    @property
    def healthy(self) -> bool:
        """False once a directory sync failed: from then on the disk's word is in doubt."""
        return self._healthy

    def identity(self) -> StoreIdentity:
        """Return which store this is.

        Raises:
            StoreUnavailable: the root holds another store than at first, or none.
        """
        with ExitStack() as stack:
            return read_identity(self._chain("", stack, make=False)[0], self._root)

    def space(self) -> Space:
        """Return the room on the disk that this store lies on.

        Raises:
            StoreUnavailable: see ``identity``; an empty mount point is no store, however much room it has.
        """
        with ExitStack() as stack:
            root = self._chain("", stack, make=False)[0]
            with self._guard("read", ""):
                status = os.fstatvfs(root)
        return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)

    def probe(self) -> None:
        """Write, sync and link a file in the staging directory: what every ``create`` needs.

        Meant for the start of a worker, so that it refuses to start where it could publish nothing.

        Raises:
            StoreUnavailable: the file system refuses; the text says what.
        """
        name = secrets.token_hex(16)
        with ExitStack() as stack:
            directory = self._chain(STAGING, stack, make=True)[-1]
            with self._guard("probe", STAGING):
                draft = self._draft(directory, b"probe", stack)
                os.fsync(draft)
                _link(draft, directory, name)
                os.unlink(name, dir_fd=directory)

    def create(self, key: str, data: bytes) -> Outcome:
        """Publish ``data`` under ``key``: durable when this returns (contract section 4).

        Raises:
            KeyInvalid: see ``check_key``; also a name too long for the file system, or in ``_staging``.
            StoreUnavailable: nothing was published; the text says what, where and what to do.
            DurabilityUnknown: published, but a sync failed; the same call again settles it.
            CorruptArtifact: a symbolic link or a file stands where a directory should be.
        """
        return self.create_many([(key, data)])[0]

    def create_many(self, items: Sequence[tuple[str, bytes]]) -> list[Outcome]:
        """As ``create`` for each item: write all, sync each, link all, then sync each directory once.

        After an exception some items may be published; the same call again is safe.
        """
        for key, _ in items:
            _check(key)
        outcomes: list[Outcome] = []
        for start in range(0, len(items), _GROUP):
            outcomes += self._create_group(items[start : start + _GROUP])
        return outcomes

    @contextmanager
    def draft(self) -> Iterator[LocalDraft]:
        """Begin a file whose key may be known only when it is written.

        It lies on the store's disk, without a name that a reader sees, and goes away with the block unless it
        is published.

        Raises:
            StoreUnavailable: no file can be begun there.
        """
        with ExitStack() as stack:
            with ExitStack() as above:
                root = self._chain("", above, make=False)[0]
                with self._guard("write", ""):
                    file = self._unnamed(root, stack)
            yield LocalDraft(self, file)

    def get(self, key: str) -> bytes | None:
        """Return the bytes, whole, or None when nothing is published under ``key``.

        Raises:
            KeyInvalid: see ``check_key``.
            StoreUnavailable: the store could not be read.
            CorruptArtifact: something is there, but no file that can be read; or one too large for any record
                or part of the audit log. Attachments, which may be larger, are read in pieces.
        """
        with ExitStack() as stack:
            file = self._open_file(key, stack)
            if file is None:
                return None
            most = _MOST_LOG_BYTES if key.startswith(_LOG) else _MOST_BYTES
            with self._guard("read", key, UNREADABLE):
                size = os.fstat(file).st_size
                data = _read(file, size) if size <= most else None
            if data is None:
                raise CorruptArtifact(
                    key, f"it has {size} bytes, and no file of its kind has more than {most}"
                )
            return data

    @contextmanager
    def pieces(self, key: str) -> Iterator[Iterator[bytes] | None]:
        """Yield the pieces of what ``get`` returns, or None; they can be read inside the block only.

        Opening and reading raise as ``get``.
        """
        with ExitStack() as stack:
            file = self._open_file(key, stack)
            yield None if file is None else self._pieces(file, key)

    def head(self, key: str) -> Head | None:
        """Return size and time, or None when nothing is published under ``key``; raises as ``get``."""
        with ExitStack() as stack:
            file = self._open_file(key, stack)
            if file is None:
                return None
            status = os.fstat(file)
            return Head(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys that begin with ``prefix`` and sort after ``after``, in order of code points.

        Foreign files are listed too, under the name they have, and so is what stands where a directory
        should be: nothing is passed over. Such a name need not be a valid key. Memory holds the names of
        one directory per level.

        Raises:
            KeyInvalid: the directory part of ``prefix``; see ``check_key``.
            StoreUnavailable: the root could not be read.
            CorruptArtifact: the directory that ``prefix`` names could not be read.
        """
        branch = prefix[: prefix.rfind("/") + 1]
        if branch:
            check_key(f"{branch}x")
        yield from self._walk(branch, self._names(branch), prefix, after)

    def stamp(self, directory: str) -> Stamp | None:
        """Return the stamp of a directory, at the cost of opening it; None when there is none.

        Raises:
            KeyInvalid: see ``check_key``.
            StoreUnavailable: the root could not be read.
            CorruptArtifact: the directory could not be.
        """
        check_key(f"{directory}/x")
        with ExitStack() as stack:
            chain = self._chain(directory, stack, make=False)
            if not chain:
                return None
            status = os.fstat(chain[-1])
        # Both times: who puts a backup back sets the first, and who repairs access changes only the second.
        token = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        changed = max(status.st_mtime, status.st_ctime)
        return Stamp(token, datetime.fromtimestamp(changed, UTC))

    def _walk(self, branch: str, names: Sequence[str], prefix: str, after: str) -> Iterator[str]:
        for name in names:
            key = branch + name
            if not key.startswith(prefix):
                continue
            if not key.endswith("/"):
                if key > after:
                    yield key
            elif key > after or after.startswith(key):
                try:
                    below = self._names(key)
                except CorruptArtifact:
                    # One unreadable directory must neither hide nor stop the walk over the others.
                    below = []
                    if key[:-1] > after:
                        yield key[:-1]
                yield from self._walk(key, below, prefix, after)

    def _names(self, branch: str) -> Sequence[str]:
        """Return what a directory holds, directories ending in ``/`` so that they sort as their keys do."""
        if branch.split("/", 1)[0] == STAGING:
            return []
        with ExitStack() as stack:
            chain = self._chain(branch[:-1], stack, make=False)
            if not chain:
                return []
            with self._guard("list", branch[:-1], UNREADABLE), os.scandir(chain[-1]) as entries:
                names = sorted(_entry_name(entry) for entry in entries)
        # Only at the root has the store files of its own.
        return [name for name in names if branch or not is_of_identity(name)]

    def _create_group(self, items: Sequence[tuple[str, bytes]]) -> Sequence[Outcome]:
        with ExitStack() as stack:
            chains: dict[str, Sequence[int]] = {}
            drafts = []
            for key, data in items:
                directory = _split(key)[0]
                if directory not in chains:
                    chains[directory] = self._chain(directory, stack, make=True)
                with self._guard("write", key):
                    drafts.append(self._draft(chains[directory][-1], data, stack))
            if len(drafts) > 1:
                for draft in drafts:
                    # Has the kernel begin to write all of them, so that each sync finds it nearly done.
                    # Nothing rests on it.
                    os.posix_fadvise(draft, 0, 0, os.POSIX_FADV_DONTNEED)
            for (key, _), draft in zip(items, drafts, strict=True):
                self._sync(draft, key)
            outcomes = []
            for (key, data), draft in zip(items, drafts, strict=True):
                directory, name = _split(key)
                same = partial(_holds, data)
                outcomes.append(self._publish(draft, chains[directory][-1], name, key, same))
            for directory, chain in chains.items():
                self._settle(directory, chain)
            return outcomes

    def _publish_draft(self, draft: int, key: str) -> Outcome:
        directory, name = _split(_check(key))
        with ExitStack() as stack:
            chain = self._chain(directory, stack, make=True)
            self._sync(draft, key)
            outcome = self._publish(draft, chain[-1], name, key, partial(_alike, draft))
            self._settle(directory, chain)
        return outcome

    def _draft(self, directory: int, data: bytes, stack: ExitStack) -> int:
        """Write ``data`` into a new file that no reader can see and that goes away with ``stack``."""
        draft = self._unnamed(directory, stack)
        _write(draft, data)
        return draft

    def _unnamed(self, directory: int, stack: ExitStack) -> int:
        try:
            draft = os.open(".", os.O_TMPFILE | os.O_RDWR, _FILE_MODE, dir_fd=directory)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            draft = self._staged(stack)
        stack.callback(os.close, draft)
        return draft

    def _staged(self, stack: ExitStack) -> int:
        staging = self._chain(STAGING, stack, make=True)[-1]
        name = secrets.token_hex(16)
        draft = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE, dir_fd=staging)

        def remove() -> None:
            # Left over at worst, and invisible: the outcome of the create stands either way.
            with suppress(OSError):
                os.unlink(name, dir_fd=staging)

        stack.callback(remove)
        return draft

    def _sync(self, draft: int, key: str) -> None:
        # After a failed sync the kernel calls the pages clean, so a second sync of this inode would lie. It
        # has no name yet: closing it throws it away.
        with self._guard("sync", key):
            os.fsync(draft)

    def _publish(self, draft: int, directory: int, name: str, key: str, same: _Same) -> Outcome:
        with self._guard("publish", key):
            try:
                _link(draft, directory, name)
            except FileExistsError:
                return self._compare(directory, name, key, same)
            return Outcome.CREATED

    def _compare(self, directory: int, name: str, key: str, same: _Same) -> Outcome:
        """Say whether what has the name is the same, and sync it: its writer may not have done so yet."""
        try:
            file = os.open(name, _OPEN_FILE, dir_fd=directory)
        except OSError as error:
            if error.errno in PLANTED:
                return Outcome.CONFLICT
            raise
        with ExitStack() as stack:
            stack.callback(os.close, file)
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return Outcome.CONFLICT
            repeat = same(status.st_size, file)
            try:
                os.fsync(file)
            except OSError as error:
                raise self._unknown(error, key) from error
        return Outcome.ALREADY_SAME if repeat else Outcome.CONFLICT

    def _settle(self, directory: str, chain: Sequence[int]) -> None:
        """Sync a directory and, once per directory, those above it, up to one whose own name is durable.

        Also when another process made them: its own sync may still be under way, and our file would
        vanish with them.
        """
        parts = directory.split("/") if directory else []
        named = []
        try:
            os.fsync(chain[-1])
            for depth in range(len(parts), 0, -1):
                name = "/".join(parts[:depth])
                if name in self._settled:
                    break
                os.fsync(chain[depth - 1])
                named.append(name)
        except OSError as error:
            raise self._unknown(error, directory) from error
        if len(self._settled) + len(named) > _SETTLED_LIMIT:
            self._settled.clear()
        self._settled.update(named)

    def _chain(self, directory: str, stack: ExitStack, *, make: bool) -> Sequence[int]:
        """Open the root and each directory down to ``directory``; nothing if one is missing."""
        with self._guard("open", ""):
            chain = [os.open(self._root, _OPEN_DIRECTORY)]
        stack.callback(os.close, chain[0])
        self._recognise(chain[0])
        parts = directory.split("/") if directory else []
        for depth, part in enumerate(parts, start=1):
            # Not to be written is a state of the store; not to be read is damage to what lies there.
            with self._guard("open", "/".join(parts[:depth]), PLANTED if make else UNREADABLE):
                try:
                    below = _open_below(chain[-1], part, make=make)
                except FileNotFoundError:
                    if make:
                        raise
                    return []
            stack.callback(os.close, below)
            chain.append(below)
        return chain

    def _recognise(self, root: int) -> None:
        """Make sure that the open ``root`` is this store's: not an empty mount point, nor another store."""
        try:
            status = os.stat(IDENTITY_FILE, dir_fd=root, follow_symlinks=False)
            seen = (status.st_dev, status.st_ino)
        except OSError:
            seen = None  # read_identity says what is wrong
        if seen is not None and seen == self._seen:
            return
        # Another mount of the same store may have other numbers.
        store_id = read_identity(root, self._root).store_id
        if self._store_id is None:
            self._store_id = store_id
        elif store_id != self._store_id:
            raise StoreUnavailable(
                f"{self._root} holds store {store_id}, not {self._store_id}; mount the right one, or check "
                "RMOS_RUNS_DIR and RMOS_STORE_ID"
            )
        self._seen = seen

    def _open_file(self, key: str, stack: ExitStack) -> int | None:
        directory, name = _split(_check(key))
        with ExitStack() as above:
            chain = self._chain(directory, above, make=False)
            if not chain:
                return None
            with self._guard("read", key, UNREADABLE):
                try:
                    file = os.open(name, _OPEN_FILE, dir_fd=chain[-1])
                except FileNotFoundError:
                    return None
        stack.callback(os.close, file)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise CorruptArtifact(key, "not a regular file")
        return file

    def _pieces(self, file: int, key: str) -> Iterator[bytes]:
        while True:
            with self._guard("read", key, UNREADABLE):
                piece = os.read(file, PIECE_BYTES)
            if not piece:
                return
            yield piece

    @contextmanager
    def _guard(self, verb: str, key: str, damage: frozenset[int] = PLANTED) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_error(error, verb, self._root, key, damage) from error

    def _unknown(self, error: OSError, key: str) -> DurabilityUnknown:
        self._healthy = False
        return DurabilityUnknown(
            f"{self._root / key} is published, but its sync failed: {error.strerror}; check the disk"
        )


class LocalDraft:
    """A file on its way into a ``LocalStore``. Not safe for several threads at once.

    It is used up by being published and by any failure: what is published never changes, and after a failed
    write or sync nobody knows what the file holds. Any call after that raises ``RuntimeError``.
    """

    def __init__(self, store: LocalStore, file: int) -> None:
        """Fill the open ``file``, which has no name."""
        self._store = store
        self._file = file
        self._used_up = False

    def write(self, data: bytes) -> None:
        """Add ``data`` at the end.

        Raises:
            StoreUnavailable: it could not be written; the text says why, and what to do.
        """
        self._use_up()
        with self._store._guard("write", ""):  # noqa: SLF001 - the store's own other half
            _write(self._file, data)
        self._used_up = False

    def publish(self, key: str) -> Outcome:
        """Publish what was written: durable when this returns, and raises as ``LocalStore.create``."""
        self._use_up()
        return self._store._publish_draft(self._file, key)  # noqa: SLF001 - as above

    def _use_up(self) -> None:
        if self._used_up:
            msg = "this draft is used up; write another"
            raise RuntimeError(msg)
        self._used_up = True


def _check(key: str) -> str:
    first = check_key(key).split("/", 1)[0]
    if first in {STAGING, IDENTITY_FILE}:
        raise KeyInvalid(f"store keys under {first} are the store's own")
    return key


def _split(key: str) -> tuple[str, str]:
    directory, _, name = key.rpartition("/")
    return directory, name


def _open_below(parent: int, name: str, *, make: bool) -> int:
    flags = _OPEN_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # another process made it just now
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
    return os.open(name, flags, dir_fd=parent)


def _link(draft: int, directory: int, name: str) -> None:
    # dst_dir_fd is what makes Python pass AT_SYMLINK_FOLLOW; without it linkat answers EXDEV.
    os.link(f"/proc/self/fd/{draft}", name, dst_dir_fd=directory, follow_symlinks=True)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _holds(data: bytes, size: int, file: int) -> bool:
    return size == len(data) and _read(file, size) == data


def _alike(draft: int, size: int, file: int) -> bool:
    if size != os.fstat(draft).st_size:
        return False
    position = 0
    while position < size:
        theirs, ours = os.pread(file, PIECE_BYTES, position), os.pread(draft, PIECE_BYTES, position)
        read = min(len(theirs), len(ours))
        if read == 0 or theirs[:read] != ours[:read]:
            return False
        position += read
    return True


def _read(file: int, size: int) -> bytes:
    # By its size: a file that somebody else makes longer meanwhile must not be read without end. One byte
    # more tells that it is longer, so that it is not taken for what it was.
    with open(file, "rb", closefd=False) as stream:
        return stream.read(size + 1)


def _entry_name(entry: os.DirEntry[str]) -> str:
    # Foreign names may be no UTF-8; escaped they can be logged, and no valid key looks like that.
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    # No directory of ours has a dot in its name, save those of partial tiles: one that has stands where a
    # file should be, and whoever reads it as the file learns that it is corrupt.
    may_be_directory = "." not in name or PARTIAL.fullmatch(name) is not None
    return f"{name}/" if may_be_directory and entry.is_dir(follow_symlinks=False) else name
