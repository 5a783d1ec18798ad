"""Entries and names of the log: one form each, and nothing else is one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.auditlog import layout
from rmos_shared.auditlog.entry import (
    EntryInvalid,
    RecordEntry,
    SealEntry,
    SealFacts,
    format_time,
    key_of,
    parse_entry,
    record_line,
)
from rmos_shared.auditlog.moment import earliest, time_in
from rmos_shared.ids import new_uuid7
from rmos_shared.store.base import KEY, check_key

AT = datetime(2026, 11, 28, 20, 0, 0, 123_000, tzinfo=UTC)
SHA = "ab" * 32
LINE = (
    b'{"at":"2026-11-28T20:00:00.123Z","key":"2026-11-28/ab.json",'
    b'"sha256":"' + SHA.encode() + b'","size":3021,"v":1}'
)
SEAL_LINE = (
    b'{"at":"2026-11-28T20:00:00.123Z","seal":{"entries":11,"feed":"1764360000123-4",'
    b'"next":"2026-11-28T21:00:00.123Z","upto":"2026-11-28T20:00:00.123Z"},"v":1}'
)

times = st.datetimes(datetime(1970, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
keys = st.from_regex(KEY, fullmatch=True).filter(layout.is_entry)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
sizes = st.integers(0, (1 << 53) - 1)


def test_a_record_and_a_seal_have_the_form_that_is_documented() -> None:
    record = RecordEntry(at=AT, key="2026-11-28/ab.json", sha256=SHA, size=3021)
    assert record.to_line() == LINE
    assert parse_entry(LINE) == record
    facts = SealFacts(entries=11, feed="1764360000123-4", next=AT + timedelta(hours=1), upto=AT)
    seal = SealEntry(at=AT, seal=facts)
    assert seal.to_line() == SEAL_LINE
    assert parse_entry(SEAL_LINE) == seal
    assert (key_of(LINE), key_of(SEAL_LINE)) == ("2026-11-28/ab.json", None)


@given(times, keys, hashes, sizes)
def test_the_quick_line_is_the_canonical_json_of_the_entry(
    at: datetime, key: str, sha256: str, size: int
) -> None:
    entry = RecordEntry(at=at, key=key, sha256=sha256, size=size)
    line = record_line(at=at, key=key, sha256=sha256, size=size)
    assert line == entry.to_line()
    assert parse_entry(line) == entry
    assert key_of(line) == key
    assert list(json.loads(line)) == sorted(json.loads(line))


@given(times, keys, hashes, sizes, st.sampled_from(["late", "adopted"]), st.text(max_size=80))
def test_what_is_rare_in_an_entry_is_in_its_line_too(  # noqa: PLR0917 - hypothesis gives them by position
    at: datetime, key: str, sha256: str, size: int, found: str, trusts: str
) -> None:
    line = record_line(at=at, key=key, sha256=sha256, size=size, found=found, trusts=trusts)  # type: ignore[arg-type]
    entry = parse_entry(line)
    assert isinstance(entry, RecordEntry)
    assert (entry.found, entry.trusts) == (found, trusts)
    assert key_of(line) == key


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "_log/seals/000/000/000/000"},
        {"key": "_store.json"},
        {"key": "_staging/x"},
        {"key": "../x"},
        {"key": 'a"b'},
        {"key": "ä"},
        {"key": ""},
        {"sha256": "AB" * 32},
        {"sha256": "ab"},
        {"size": -1},
        {"size": 1 << 53},
        {"size": True},
        {"found": "early"},
        {"found": "late", "at": datetime(2026, 8, 1)},  # noqa: DTZ001
        {"found": "late", "at": 1_785_585_600},
        {"trusts": "x" * 0xFFFF},
    ],
)
def test_what_no_log_can_hold_is_refused_by_the_writer(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's or ours
        record_line(**({"at": AT, "key": "a", "sha256": SHA, "size": 1} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b"[" * 100_000,
        LINE + b"\n",
        LINE + b" ",
        LINE.replace(b":", b": ", 1),
        LINE.replace(b"3021", b"3021.0"),
        LINE.replace(b"3021", b"-1"),
        LINE.replace(b'"v":1', b'"v":2'),
        LINE.replace(b'"v":1', b'"v":1,"x":1'),
        LINE.replace(b".123Z", b"Z"),
        LINE.replace(b".123Z", b".1234Z"),
        LINE.replace(b".123Z", b".123+00:00"),
        LINE.replace(b"2026-11-28/ab", b"_log/x"),
        LINE.replace(b"2026-11-28/ab", b"../ab"),
        LINE.replace(b"ab.json", b"\\u0061b.json"),
        LINE.replace(b'"key"', b'"found":null,"key"'),
        SEAL_LINE.replace(b'"entries":11', b'"entries":0'),
        SEAL_LINE.replace(b"1764360000123-4", b"x"),
        SEAL_LINE.replace(b"1764360000123-4", "\u0661-1".encode()),
    ],
)
def test_what_is_no_entry_is_refused_without_its_content(line: bytes) -> None:
    with pytest.raises(EntryInvalid) as raised:
        parse_entry(line)
    assert SHA not in str(raised.value)


def test_times_are_kept_to_the_millisecond_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 8, 1, 2, 0, 0, 999_999, tzinfo=zone)) == "2026-08-01T00:00:00.999Z"


# -- names ---------------------------------------------------------------------------------------------


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_grouped_numbers_sort_as_numbers_do(one: int, other: int) -> None:
    assert (layout.grouped(one) < layout.grouped(other)) is (one < other)
    assert layout.number_of(layout.grouped(one)) == one
    for key in (layout.seal_key(one), layout.checkpoint_key(one), layout.timestamp_key(one)):
        check_key(key)
    check_key(layout.cosignature_key(one, "0123abcd"))
    assert layout.checkpoint_size(layout.checkpoint_key(one)) == one


@pytest.mark.parametrize("number", [-1, 10**12])
def test_other_numbers_have_no_name(number: int) -> None:
    with pytest.raises(ValueError, match="not between"):
        layout.grouped(number)


@pytest.mark.parametrize(
    "text", ["", "000/000/000", "0000/00/000/000", "000/000/000/0000", "\u0660\u0660\u0660/000/000/000"]
)
def test_other_texts_are_no_numbers(text: str) -> None:
    assert layout.number_of(text) is None


def test_acts_lie_by_the_day_of_their_begin() -> None:
    act = new_uuid7()
    assert layout.act_begun_key("2026-08-01", act) == f"_acts/2026-08-01/{act}_begun.json"
    assert layout.act_ended_key("2026-08-01", act) == f"_acts/2026-08-01/{act}_ended.json"
    for day, name in (("2026-8-1", act), ("2026-08-01", "x")):
        with pytest.raises(ValueError, match=r"an act|a day"):
            layout.act_begun_key(day, name)
    with pytest.raises(ValueError, match="8 lower-case"):
        layout.cosignature_key(1, "0123ABCD")


RUN = "01a20d3c3a8b73898836cc2b6ecc4ed6"
OURS = [
    f"2026-08-01/{RUN}.json",
    "2026-08-01/old-id_1.json",
    f"2026-08-01/{RUN}_advisory_{'c' * 32}.json",
    f"2026-08-01/{'a' * 100}_advisory_{'b' * 100}.json",
    f"_reviews/2026-08-01/{RUN}/{RUN}.json",
    f"_attempts/2026-08-01/{RUN}/{RUN}.explain_1785585600000.json",
    f"_acts/2026-08-01/{RUN}_begun.json",
    f"_acts/2026-08-01/{RUN}_ended.json",
    f"_batches/2026-08-01/{RUN}.json",
    f"_attachments/ab/{SHA}",
    f"_attachments/ab/{SHA}.json.gz",
]
FOREIGN = [
    "notes.txt",
    "2026-02-30/a.json",
    "2026-08-01/a.txt",
    "2026-08-01/sub/a.json",
    "2026-08-01",
    f"_reviews/2026-08-01/{RUN}.json",
    f"_attempts/2026-08-01/{RUN}/x_1.json",
    f"_acts/2026-08-01/{RUN}.json",
    f"_attachments/cd/{SHA}",
    f"_attachments/ab/{SHA}.a.b.c",
    "_log/checkpoints/000/000/000/001",
    "_other/2026-08-01/a.json",
]


@pytest.mark.parametrize("key", OURS)
def test_records_are_known_by_their_names(key: str) -> None:
    assert layout.is_ours(check_key(key))
    assert layout.is_entry(key)


@pytest.mark.parametrize("key", FOREIGN)
def test_other_names_are_foreign(key: str) -> None:
    assert not layout.is_ours(key)


# -- times in names ------------------------------------------------------------------------------------

MOMENT = datetime(2026, 8, 1, 12, 30, tzinfo=UTC)
#: Of ``MOMENT``; fixed, for it is part of the names of tests.
AT_NOON = "019fbd4d7d407efe8c8b76b6af79c1db"
DAY = datetime(2026, 8, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (f"2026-08-01/{AT_NOON}.json", MOMENT),
        (f"2026-08-01/{AT_NOON}_advisory_{'c' * 32}.json", MOMENT),
        # Reviews and attempts have times of their own, which may be years after that of the run.
        (f"_reviews/2020-02-02/{RUN}/{AT_NOON}.json", MOMENT),
        (f"_reviews/2026-08-01/{AT_NOON}/migrated.json", MOMENT),
        (f"_attempts/2020-02-02/{RUN}/{RUN}.explain_1785587400000.json", MOMENT),
        (f"_attempts/2026-08-01/{RUN}/{RUN}_{10**15 - 1}.json", None),
        (f"_acts/2026-08-01/{AT_NOON}_begun.json", MOMENT),
        (f"_batches/2026-08-01/{AT_NOON}.json", MOMENT),
        ("2026-08-01/migrated.json", DAY),
        # An advisory's id is a hash, one of 64 of which looks like a UUIDv7: it tells no time.
        (f"2026-08-01/migrated_advisory_{AT_NOON}.json", DAY),
        (f"2026-08-01/{AT_NOON}0.json", DAY),
        (f"_attachments/ab/{AT_NOON}{AT_NOON}", None),
        ("2026-99-99/x.json", None),
        ("x", None),
    ],
)
def test_the_time_in_a_name_is_that_of_the_run_or_of_its_day(key: str, expected: datetime | None) -> None:
    assert time_in(key) == expected


def test_the_search_begins_with_the_earlier_of_the_times_that_are_known() -> None:
    key, hour = f"2026-08-01/{AT_NOON}.json", timedelta(hours=1)
    assert earliest(key, MOMENT + hour, AT) == MOMENT
    assert earliest(key, MOMENT - hour, AT) == MOMENT - hour
    assert earliest(key, None, AT) == MOMENT
    assert earliest("x", None, AT) == AT
