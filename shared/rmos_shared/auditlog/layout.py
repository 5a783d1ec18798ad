"""Where the parts of the audit log lie: the names, and nothing that touches a disk."""

from __future__ import annotations

import re
from datetime import date

from rmos_shared.ids import JOB_ID, SAFE_ID, UUID7

#: All of the log. Nothing below it is an entry.
LOG = "_log/"
#: One file for each seal: its entries, a line each. Who creates it first decides what the log holds there.
SEALS = f"{LOG}seals/"
#: Hash tiles by level, and the bundles of entries.
TILES = f"{LOG}tile/"
BUNDLES = f"{TILES}entries/"
#: A signed note for each size that was sealed.
CHECKPOINTS = f"{LOG}checkpoints/"
#: What witnesses signed, and what time-stamping authorities did.
COSIGNATURES = f"{LOG}cosignatures/"
TIMESTAMPS = f"{LOG}timestamps/"
#: Acts of people and of the system that are no job's normal way. They are entries like any other record.
ACTS = "_acts/"
#: The one branch whose names tell no day.
ATTACHMENTS = "_attachments/"

#: Larger numbers have no name.
MOST = 10**12

#: Names that the store itself keeps, or that are parts of the log: never entries.
_NO_ENTRIES = (LOG, "_staging/", "_store.json", "_store.")
_GROUPED = re.compile(r"(\d{3})/(\d{3})/(\d{3})/(\d{3})", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
#: Names as the writers of records give them, by where they lie.
_OURS = re.compile(
    "|".join(
        (
            rf"{_DAY.pattern}/{SAFE_ID.pattern}(?:_advisory_{SAFE_ID.pattern})?\.json",
            rf"_reviews/{_DAY.pattern}/{SAFE_ID.pattern}/{SAFE_ID.pattern}\.json",
            rf"_attempts/{_DAY.pattern}/{SAFE_ID.pattern}/(?:{JOB_ID.pattern})_[0-9]{{1,15}}\.json",
            rf"_batches/{_DAY.pattern}/(?:{JOB_ID.pattern})\.json",
            rf"{ACTS}{_DAY.pattern}/{UUID7.pattern}_(?:begun|ended)\.json",
            rf"{ATTACHMENTS}(?P<aa>[0-9a-f]{{2}})/(?P=aa)[0-9a-f]{{62}}(?:\.[a-z0-9]{{1,16}}){{0,2}}",
        )
    ),
    re.ASCII,
)
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)


def grouped(number: int) -> str:
    """Return ``number`` as part of a key, ``000/000/001/410``: keys sort as their numbers do.

    Raises:
        ValueError: it is negative, or has more than twelve digits.
    """
    if not 0 <= number < MOST:
        raise ValueError(f"{number} is not between 0 and {MOST - 1}")
    digits = f"{number:012d}"
    return "/".join(digits[start : start + 3] for start in range(0, 12, 3))


def number_of(text: str) -> int | None:
    """Return the number that ``grouped`` wrote; None for anything else."""
    return int(text.replace("/", "")) if _GROUPED.fullmatch(text) else None


def seal_key(start: int) -> str:
    """Return the key of the seal whose first entry has the index ``start``."""
    return f"{SEALS}{grouped(start)}"


def checkpoint_key(size: int) -> str:
    """Return the key of the checkpoint of the tree of ``size`` entries."""
    return f"{CHECKPOINTS}{grouped(size)}"


def checkpoint_size(key: str) -> int | None:
    """Return the size of the tree whose checkpoint lies under this key; None for any other key."""
    return number_of(key.removeprefix(CHECKPOINTS)) if key.startswith(CHECKPOINTS) else None


def cosignature_key(size: int, key_id: str) -> str:
    """Return the key of a witness's cosignature; ``key_id`` is that of its public key, 8 hex digits.

    Raises:
        ValueError: ``key_id`` is no such thing.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError("a key id is 8 lower-case hex digits")
    return f"{COSIGNATURES}{grouped(size)}_{key_id}"


def timestamp_key(size: int) -> str:
    """Return the key of the time stamp of the checkpoint of that size."""
    return f"{TIMESTAMPS}{grouped(size)}.tsr"


def act_begun_key(day: str, act_id: str) -> str:
    """Return the key of the record that an act began; ``day`` is the UTC day of its begin, ``YYYY-MM-DD``."""
    return f"{_act(day, act_id)}_begun.json"


def act_ended_key(day: str, act_id: str) -> str:
    """Return the key of the record that an act ended; ``day`` is that of its begin."""
    return f"{_act(day, act_id)}_ended.json"


def is_entry(key: str) -> bool:
    """Say whether what lies under ``key`` belongs into the log: all but the log and the store's own files."""
    return not key.startswith(_NO_ENTRIES)


def is_ours(key: str) -> bool:
    """Say whether a record of ours may have this key, by its shape: what else lies in a store is foreign."""
    if not _OURS.fullmatch(key):
        return False
    day = _DAY.search(key)
    return key.startswith(ATTACHMENTS) or (day is not None and is_day(day[0]))


def is_day(name: str) -> bool:
    """Say whether ``name`` is a day, ``YYYY-MM-DD``, of the calendar."""
    try:
        return _DAY.fullmatch(name) is not None and date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False


def _act(day: str, act_id: str) -> str:
    if not _DAY.fullmatch(day):
        raise ValueError("a day is YYYY-MM-DD")
    if not UUID7.fullmatch(act_id):
        raise ValueError("an act's id is a UUIDv7 of 32 lower-case hex digits")
    return f"{ACTS}{day}/{act_id}"
