"""API keys: a file of their hashes, how it is edited, and who a key belongs to.

A key is 256 random bits, so a fast hash is enough: nobody can try that many, and there is no word to guess. A
slow hash, made for passwords, would only cost each request its time.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import Conflict, InvalidRequest, NotFound, SettingsInvalid
from rmos_shared.models.base import Frozen, Sha256, UtcTime
from rmos_shared.telemetry.events import ApiKeysChanged, ApiKeysUnreadable
from rmos_shared.telemetry.log import emit

#: How every key begins, so that one that was published by mistake is found by a search.
PREFIX = "rmos_"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
#: More than any file of keys needs; a larger one is none.
_MOST_BYTES = 1_048_576
_FILE_MODE = 0o600


class Role(StrEnum):
    """What a key may do."""

    #: Put jobs and attachments in, and ask how they fare.
    ENQUEUE = "enqueue"
    #: Read runs and jobs.
    READ = "read"
    #: See what waits for a person, and decide it.
    REVIEW = "review"
    #: Replay and discard dead letters, see the ledger.
    OPERATE = "operate"
    #: Read everything, change nothing.
    AUDIT = "audit"
    #: Read the metrics, and nothing else: for a program that keeps its key in a file on another machine.
    MONITOR = "monitor"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        msg = "must be 1 to 64 lower-case letters, digits, '.', '_' or '-', and begin with a letter or digit"
        raise ValueError(msg)
    return value


KeyName = Annotated[str, AfterValidator(_name)]


class ApiKey(Frozen):
    """A line of the file: a key's name, roles and hash, never the key."""

    name: KeyName
    roles: list[Annotated[Role, Field(strict=False)]] = Field(min_length=1)
    sha256: Sha256
    created_at_utc: UtcTime
    #: A revoked key stays as a line: a file whose last key was revoked lets nobody in.
    revoked_at_utc: UtcTime | None = None


class KeyNotFound(NotFound):
    """No key of this name is in force."""

    code = "KEY_NOT_FOUND"


class KeyExists(Conflict):
    """A key of this name is in force."""

    code = "KEY_EXISTS"


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file, revoked ones too.

    Raises:
        SettingsInvalid: it cannot be read, or a line of it is no key; the text quotes nothing of it.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        why = type(error).__name__
        raise SettingsInvalid(
            f"RMOS_API_KEYS_FILE: {file} cannot be read ({why}); make it with `rmos keys add`"
        ) from error
    if len(data) > _MOST_BYTES:
        raise SettingsInvalid(f"RMOS_API_KEYS_FILE: {file} is larger than {_MOST_BYTES} bytes")
    return tuple(_key(file, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def _key(file: Path, number: int, line: str) -> ApiKey:
    try:
        return ApiKey.read(json.loads(line))
    except (ValueError, RecursionError, InvalidRequest):
        raise SettingsInvalid(f"RMOS_API_KEYS_FILE: line {number} of {file} is no key") from None


def add_key(file: Path, name: str, roles: Sequence[Role], *, now: datetime) -> str:
    """Add a key to the file, which is made if it is missing, and return it: the only time that it is seen.

    Raises:
        InvalidRequest: the name breaks the rule, or there is no role.
        KeyExists: a key of this name is in force.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    fields = {"name": name, "roles": [*dict.fromkeys(roles)], "sha256": sha256_hex(token.encode())}
    added = ApiKey.read(fields | {"created_at_utc": now}, what="key")
    with _edited(file) as keys:
        if any(key.name == name and key.revoked_at_utc is None for key in keys):
            raise KeyExists(f"a key named {name} is in force; revoke it first, or choose another name")
        keys.append(added)
    return token


def revoke_key(file: Path, name: str, *, now: datetime) -> None:
    """Revoke a key; its line stays.

    Raises:
        KeyNotFound: no key of this name is in force.
    """
    with _edited(file) as keys:
        for index, key in enumerate(keys):
            if key.name == name and key.revoked_at_utc is None:
                keys[index] = key.model_copy(update={"revoked_at_utc": now})
                return
        raise KeyNotFound(f"no key named {name} is in force; `rmos keys list` shows them")


@contextmanager
def _edited(file: Path) -> Iterator[list[ApiKey]]:
    """Yield the keys to change; whole or not at all they take the place of those on file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with _lock(file):
        keys = [*read_keys(file)] if file.exists() else []
        yield keys
        draft = file.with_name(f"{file.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _FILE_MODE)
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(stream.fileno(), _FILE_MODE)
            stream.writelines(f"{json.dumps(key.dump())}\n" for key in keys)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class KeyRing:
    """The keys in force. The file is read again whenever it has changed, so keys rotate without a restart.

    A file that cannot be read, or has become empty, leaves the last good keys in force and is reported once.
    """

    def __init__(self, file: Path | None) -> None:
        """Read ``file``; None: no keys, now or later.

        Raises:
            SettingsInvalid: it cannot be read.
        """
        self._file = file
        self._seen = self._mark()
        self._keys = () if file is None else read_keys(file)

    @property
    def configured(self) -> bool:
        """Whether callers must have a key; so it is even when every key is revoked."""
        self._refresh()
        return bool(self._keys)

    def find(self, token: str) -> ApiKey | None:
        """Return the key in force that ``token`` is; every key is compared, each in constant time."""
        self._refresh()
        given, found = sha256_hex(token.encode("utf-8", "surrogateescape")), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given) and key.revoked_at_utc is None:
                found = key
        return found

    def _refresh(self) -> None:
        mark = self._mark()
        if self._file is None or mark == self._seen:
            return
        self._seen = mark
        try:
            keys = read_keys(self._file)
        except SettingsInvalid as error:
            emit(ApiKeysUnreadable(error=str(error)))
            return
        if self._keys and not keys:
            # Perhaps an editor is about to write it.
            emit(ApiKeysUnreadable(error=f"RMOS_API_KEYS_FILE: {self._file} is empty"))
            return
        self._keys = keys
        emit(ApiKeysChanged(keys=sum(key.revoked_at_utc is None for key in keys)))

    def _mark(self) -> tuple[int, ...]:
        if self._file is None:
            return ()
        try:
            found = self._file.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino
