"""The entries of the log: one canonical JSON line for each published file, and one that ends each seal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from rmos_shared.auditlog.layout import is_entry
from rmos_shared.auditlog.tiles import MOST_ENTRY_BYTES
from rmos_shared.canonical import encode, is_sha256
from rmos_shared.errors import DamageFound, InvalidRequest
from rmos_shared.models.base import Frozen, Sha256
from rmos_shared.store.base import KEY

#: How a file came into the log without a receipt of its writer: found later, or there before the log.
Found = Literal["late", "adopted"]

#: Larger numbers are not exact everywhere.
MOST_SIZE = 1 << 53

_KEY_MARK = b'"key":"'


class EntryInvalid(DamageFound):
    """A line is no entry of an audit log."""

    code = "ENTRY_INVALID"


def format_time(moment: datetime) -> str:
    """Return an aware time as the log writes it: RFC 3339, UTC, cut to milliseconds, ending in ``Z``."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat('T', 'milliseconds')[:-6]}Z"


def to_milliseconds(moment: datetime) -> datetime:
    """Return the time that ``format_time`` keeps of ``moment``."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)


def _parse_time(value: object) -> object:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("not a time") from None
        if moment.utcoffset() is None or format_time(moment) != value:
            raise ValueError("not a time of UTC with milliseconds, ending in Z")
        return moment.astimezone(UTC)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("the time has no zone")
        return to_milliseconds(value)
    return value


#: Milliseconds, UTC.
LogTime = Annotated[
    datetime, BeforeValidator(_parse_time), PlainSerializer(format_time, return_type=str, when_used="json")
]


class RecordEntry(Frozen):
    """What the log says of one published file."""

    #: When the ledger took its receipt; when it was found, where there was none.
    at: LogTime
    key: Annotated[str, StringConstraints(pattern=rf"\A(?:{KEY.pattern})\z")]
    sha256: Sha256
    size: Annotated[int, Field(ge=0, lt=MOST_SIZE)]
    found: Found | None = None
    #: On the record that introduces a new signing key: that key.
    trusts: str | None = None
    v: Literal[1] = 1

    def to_line(self) -> bytes:
        """Return the entry's bytes, without a newline.

        Raises:
            ValueError: its key belongs into no log, or it is too long.
        """
        if not is_entry(self.key):
            raise ValueError(f"{self.key} is no entry of the audit log")
        return _line({name: value for name, value in self.dump().items() if value is not None})


class SealFacts(Frozen):
    """What a seal says of itself."""

    #: Of this seal, itself included.
    entries: Annotated[int, Field(ge=1)]
    #: Id of the last receipt that was taken from the feed; "" as long as none was.
    feed: Annotated[str, StringConstraints(pattern=r"\A(?:[0-9]{1,20}-[0-9]{1,20})?\z")]
    #: A checkpoint is promised no later than that.
    next: LogTime
    #: Every receipt up to then is in the log.
    upto: LogTime


class SealEntry(Frozen):
    """The last entry of a seal."""

    #: When it was sealed.
    at: LogTime
    seal: SealFacts
    v: Literal[1] = 1

    def to_line(self) -> bytes:
        """Return the entry's bytes, without a newline."""
        return _line(self.dump())


Entry = RecordEntry | SealEntry


def record_line(
    at: datetime, key: str, sha256: str, size: int, *, found: Found | None = None, trusts: str | None = None
) -> bytes:
    """Return the bytes of a record's entry, without a newline: those of ``RecordEntry``, many times as fast.

    Raises:
        ValueError: no entry of the log can be of these; a field is wrong, or the key belongs into no log.
    """
    plain = found is None and trusts is None and type(size) is int and 0 <= size < MOST_SIZE
    if plain and KEY.fullmatch(key) and is_sha256(sha256) and (key[0] != "_" or is_entry(key)):
        # None of them can hold what JSON would have to escape.
        line = f'{{"at":"{_time(at)}","key":"{key}","sha256":"{sha256}","size":{size},"v":1}}'
        return line.encode()
    return RecordEntry(at=at, key=key, sha256=sha256, size=size, found=found, trusts=trusts).to_line()


#: Many receipts come in one moment.
_time = lru_cache(maxsize=256)(format_time)


def parse_entry(line: bytes) -> Entry:
    """Return the entry that these bytes are.

    Raises:
        EntryInvalid: they are none, or not in the one form that an entry has.
    """
    try:
        value: Any = json.loads(line)
        is_seal = isinstance(value, dict) and "seal" in value
        entry = SealEntry.read(value) if is_seal else RecordEntry.read(value)
        if entry.to_line() == line:
            return entry
    except InvalidRequest as error:
        raise EntryInvalid(f"no entry of an audit log: {'; '.join(map(str, error.problems))}") from None
    except (ValueError, RecursionError):
        raise EntryInvalid("no entry of an audit log: not a line of JSON, or of no record of ours") from None
    raise EntryInvalid("no entry of an audit log: its JSON is not canonical")


def key_of(line: bytes) -> str | None:
    """Return the key that an entry tells of, None for a seal: by its place alone, so quickly, not proven."""
    start = line.find(_KEY_MARK)
    if start < 0:
        return None
    start += len(_KEY_MARK)
    return line[start : line.find(b'"', start)].decode("ascii", "replace")


def _line(value: dict[str, Any]) -> bytes:
    line = encode(value)
    if len(line) > MOST_ENTRY_BYTES:
        raise ValueError(f"an entry has more than {MOST_ENTRY_BYTES} bytes")
    return line
