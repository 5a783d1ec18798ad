"""Which store this is: a file at its root that tells it from an empty mount point and from every other store.

A disk that loses its mount leaves an empty directory under the same name. A file written there is lost
to every reader once the disk is back. So a directory is a store only if it holds an identity, which is
written once, by ``init_store``, and nowhere else.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from rmos_shared.errors import InvalidRequest, StoreUnavailable
from rmos_shared.ids import new_uuid7, uuid7_time
from rmos_shared.models.base import Frozen, SafeId, UtcTime
from rmos_shared.store.os_errors import store_error

#: The identity's file at the root of a store.
IDENTITY_FILE = "_store.json"

_DRAFT = re.compile(r"_store\.[0-9a-f]{16}", re.ASCII)
_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o440
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
#: More than any identity needs; a larger file is none.
_MAX_BYTES = 4_096
#: What a file system itself keeps in the root of a fresh disk.
_NOT_OURS = frozenset({"lost+found"})
_WHAT_TO_DO = "mount the store there, check RMOS_RUNS_DIR, or make a new store with `rmos store init`"


class StoreIdentity(Frozen):
    """What the identity file holds."""

    #: UUIDv7, 32 lower-case hex digits; every store has its own.
    store_id: SafeId
    created_at_utc: UtcTime


def init_store(root: Path, *, adopt: bool = False) -> StoreIdentity:
    """Make a store in ``root``, durably, and return its identity; one that is there already stays as it is.

    ``root`` and its parents are made if they are missing. Of several that do this at once one wins, and all
    return its identity. With ``adopt`` a directory that already holds files becomes a store too: a restored
    backup without its identity.

    Raises:
        StoreUnavailable: ``root`` holds files but no identity, or cannot be written.
    """
    try:
        _make_root(root)
        descriptor = os.open(root, _OPEN_DIRECTORY)
    except OSError as error:
        raise store_error(error, "make", root, "") from error
    try:
        if _has_identity(descriptor):
            return read_identity(descriptor, root)
        if not adopt and (foreign := _foreign(root)):
            raise StoreUnavailable(
                f"{root} holds {len(foreign)} files or directories and no {IDENTITY_FILE}; choose an empty "
                "directory, or adopt this one with `rmos store init --adopt` if it is a store"
            )
        store_id = new_uuid7()
        moment = uuid7_time(store_id)
        assert moment is not None  # noqa: S101 - minted in the line above
        _publish(descriptor, StoreIdentity(store_id=store_id, created_at_utc=moment).to_bytes())
        return read_identity(descriptor, root)
    except OSError as error:
        raise store_error(error, "make", root, IDENTITY_FILE) from error
    finally:
        os.close(descriptor)


def read_identity(directory: int, root: Path) -> StoreIdentity:
    """Return the identity in the open ``directory``; ``root`` is its name, for error texts.

    Raises:
        StoreUnavailable: there is none, or it cannot be read. Never ``CorruptArtifact``: no job is to blame,
            and jobs wait for a store that is away.
    """
    try:
        # O_NONBLOCK: opening a planted FIFO must not wait for its writer.
        file = os.open(IDENTITY_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            data = os.read(file, _MAX_BYTES)
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise StoreUnavailable(f"{root} is no store: it holds no {IDENTITY_FILE}; {_WHAT_TO_DO}") from error
    except OSError as error:
        raise store_error(error, "read", root, IDENTITY_FILE) from error
    try:
        return StoreIdentity.read(json.loads(data.decode()))
    except (ValueError, RecursionError, InvalidRequest):
        raise StoreUnavailable(
            f"{root / IDENTITY_FILE} is damaged; restore it from a backup of the store"
        ) from None


def is_of_identity(name: str) -> bool:
    """Say whether a file at the root is the identity, or a draft of it that a killed process left behind."""
    return name == IDENTITY_FILE or _DRAFT.fullmatch(name) is not None


def _foreign(root: Path) -> list[str]:
    names = (entry.name for entry in root.iterdir())
    return [name for name in names if name not in _NOT_OURS and not is_of_identity(name)]


def _has_identity(directory: int) -> bool:
    try:
        os.stat(IDENTITY_FILE, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _publish(directory: int, data: bytes) -> None:
    """Write, sync and link the identity, as the store does its artifacts: who came first keeps the name."""
    draft = f"_store.{secrets.token_hex(8)}"
    file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE, dir_fd=directory)
    try:
        os.write(file, data)
        os.fsync(file)
        with suppress(FileExistsError):
            os.link(draft, IDENTITY_FILE, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(file)
        os.unlink(draft, dir_fd=directory)
    os.fsync(directory)


def _make_root(root: Path) -> None:
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
        parent = os.open(directory.parent, _OPEN_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
