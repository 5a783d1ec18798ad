"""Ids: what is in them, in which order they come, and which of them may touch a path."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.ids import (
    JOB_ID,
    UUID7,
    advisory_id,
    create_job_id,
    explain_job_id,
    is_safe_id,
    new_uuid7,
    uuid7_time,
    webhook_message_id,
)

AT = datetime(2026, 8, 1, 6, 0, 0, 123_000, tzinfo=UTC)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
ADVISORY = {
    "run_id": "0198629cbc007abc8def0123456789ab",
    "engine_id": "feasibility_explainer",
    "engine_version": "1",
    "detail": "summary",
    "inputs_sha256": "a" * 64,
}


@given(TIMES)
def test_a_uuid7_has_the_layout_of_rfc_9562(at: datetime) -> None:
    made = new_uuid7(at)
    read = uuid.UUID(hex=made)
    assert made == read.hex
    assert UUID7.fullmatch(made)
    assert (read.version, read.variant) == (7, uuid.RFC_4122)
    assert read.int >> 80 == (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(TIMES)
def test_its_time_reads_back_to_the_millisecond(at: datetime) -> None:
    assert uuid7_time(new_uuid7(at)) == at.replace(microsecond=at.microsecond // 1000 * 1000)


@given(TIMES, st.integers(1, 10**9))
def test_ids_sort_by_their_millisecond(at: datetime, later_ms: int) -> None:
    later = at + timedelta(milliseconds=later_ms) if at.year < 9990 else at
    assert later == at or new_uuid7(at) < new_uuid7(later)


def test_an_offset_is_the_same_moment() -> None:
    away = AT.astimezone(timezone(timedelta(hours=-7)))
    assert new_uuid7(away)[:12] == new_uuid7(AT)[:12]


def test_without_a_time_it_is_now() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    told = uuid7_time(new_uuid7())
    assert told is not None
    assert before <= told <= datetime.now(UTC)


def test_ids_of_one_millisecond_differ_in_every_random_bit() -> None:
    made = [int(new_uuid7(AT), 16) for _ in range(2_000)]
    assert len(set(made)) == len(made)
    ones, zeros = 0, 0
    for value in made:
        ones |= value
        zeros |= ~value
    random_bits = (0xFFF << 64) | ((1 << 62) - 1)
    assert ones & zeros & ((1 << 128) - 1) == random_bits


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "run_abc123def456",
        "0198629cbc007abc8def0123456789a",  # a digit short
        "0198629cbc007abc8def0123456789abc",  # a digit long
        "0198629CBC007ABC8DEF0123456789AB",  # upper case
        "0198629c-bc00-7abc-8def-0123456789ab",
        "0198629cbc004abc8def0123456789ab",  # version 4
        "0198629cbc007abc0def0123456789ab",  # another variant
        "0198629cbc007abccdef0123456789ab",
        "0198629cbc007abc8def0123456789ab\n",
        " 0198629cbc007abc8def0123456789ab",
        "０198629cbc007abc8def0123456789ab",  # noqa: RUF001 - a digit, and not ASCII
        "ffffffffffff7abc8def0123456789ab",  # the year 10889
        "e677d21fdc007abc8def0123456789ab",  # 10000-01-01T00:00:00Z
    ],
)
def test_what_is_no_uuid7_has_no_time(identifier: str) -> None:
    assert uuid7_time(identifier) is None


def test_the_last_millisecond_has_a_time() -> None:
    assert uuid7_time("e677d21fdbff7abc8def0123456789ab") == datetime(
        9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "identifier",
    ["a", "0", "run_abc123def456", "A-b_C", "a" * 128, "a_advisory", "advisory_1", ADVISORY["run_id"]],
)
def test_ids_of_the_contracts_pattern_are_safe(identifier: str) -> None:
    assert is_safe_id(identifier)


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "a" * 129,
        "_a",
        "-a",
        ".",
        "..",
        "../etc/passwd",
        "a/b",
        "a\\b",
        "a\0b",
        "a\0",
        "a\n",
        "\na",
        "a b",
        "a.json",
        "a%2e%2e",
        "%2e%2e%2f",
        "..%2f",
        "/etc",
        "~",
        "C:a",
        "é",
        "\u0661",  # an Arabic digit
        "a\ud800",
        "a_advisory_b",  # it would be read as a link
        "a_advisory_",
    ],
)
def test_no_other_id_may_touch_a_path(identifier: str) -> None:
    assert not is_safe_id(identifier)


@given(st.text(st.characters(codec="ascii")))
def test_a_safe_id_is_a_plain_file_name(identifier: str) -> None:
    if is_safe_id(identifier):
        assert identifier.replace("_", "").replace("-", "").isalnum()
        assert identifier[0].isalnum()


def test_the_explanation_job_is_known_before_it_is_accepted() -> None:
    parent = new_uuid7(AT)
    follower = explain_job_id(parent)
    assert JOB_ID.fullmatch(parent)
    assert JOB_ID.fullmatch(follower)
    assert create_job_id(follower) == parent
    assert create_job_id(parent) is None
    assert not JOB_ID.fullmatch(explain_job_id(follower))


@pytest.mark.parametrize("endpoint", ["a", "erp-2", "0" * 32])
def test_a_delivery_bears_the_id_of_the_job_that_it_tells_of(endpoint: str) -> None:
    for job_id in (new_uuid7(AT), explain_job_id(new_uuid7(AT))):
        delivery = f"{job_id}.hook-{endpoint}.1795871400361"
        assert JOB_ID.fullmatch(delivery)
        assert create_job_id(delivery) == job_id[:32]
        assert not JOB_ID.fullmatch(f"{delivery}.hook-{endpoint}.1")
        assert "." not in webhook_message_id(delivery)
    for wrong in ("", "-a", "A", "a.b", "a/b", "x" * 33):
        assert not JOB_ID.fullmatch(f"{new_uuid7(AT)}.hook-{wrong}.1")


def test_an_advisory_id_is_the_same_for_ever() -> None:
    assert advisory_id(**ADVISORY) == "e843c2e704d0027bdf573a3f192e80c6"
    assert is_safe_id(advisory_id(**ADVISORY))


@pytest.mark.parametrize("name", sorted(ADVISORY))
def test_another_input_is_another_advisory(name: str) -> None:
    assert advisory_id(**ADVISORY | {name: "b" * 64}) != advisory_id(**ADVISORY)


def test_the_request_id_is_no_part_of_an_advisory_id() -> None:
    with pytest.raises(TypeError, match="request_id"):
        advisory_id(**ADVISORY, request_id="req-1")  # type: ignore[call-arg]
