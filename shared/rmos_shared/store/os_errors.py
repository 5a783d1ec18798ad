"""What an error of the operating system means for the store: one pure decision."""

from __future__ import annotations

import errno
from pathlib import Path

from rmos_shared.errors import CorruptArtifact, RmosError, StoreUnavailable
from rmos_shared.store.base import KeyInvalid

#: Something other than a directory or file of ours stands in the path: a symbolic link, a socket.
PLANTED = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})
#: One thing below the root that cannot be read while the root can: an operator must look at it.
UNREADABLE = PLANTED | {errno.EACCES, errno.EPERM, errno.EIO}

_ADVICE = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space or raise the quota",
    errno.EFBIG: "raise the limit on file size",
    errno.EROFS: "mount it writable",
    errno.EACCES: "give this process's user access",
    errno.EPERM: "use a file system with hard links, and a directory that is not immutable",
    errno.EOPNOTSUPP: "use a file system with hard links",
    errno.EXDEV: "keep the whole store on one file system",
    errno.ENOENT: "check that the directory is there and mounted, and /proc too",
    errno.ESTALE: "mount it again",
    errno.ENOTDIR: "check RMOS_RUNS_DIR",
    errno.EMFILE: "raise the limit on open files",
    errno.EIO: "check the disk",
}


def store_error(
    error: OSError, verb: str, root: Path, key: str, damage: frozenset[int] = frozenset()
) -> RmosError:
    """Return the error of ours that says what failed, where, and what to do about it.

    ``damage`` holds the error numbers that mean that ``key`` itself is damaged. The root (an empty key)
    never is: when it cannot be opened, the whole store is away.
    """
    if error.errno == errno.ENAMETOOLONG:
        return KeyInvalid("store key has a part that is too long for the file system")
    if key and error.errno in PLANTED & damage:
        return CorruptArtifact(key, "a symbolic link, or something else that is not ours, stands there")
    if key and error.errno in damage:
        return CorruptArtifact(key, f"it cannot be read ({error.strerror})")
    advice = _ADVICE.get(error.errno or 0, "see the system log")
    return StoreUnavailable(f"cannot {verb} {root / key}: {error.strerror}; {advice}")
