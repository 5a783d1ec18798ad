"""The gateway's decisions, without a process or a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_runs.gateway.bulk import Lines
from rmos_runs.gateway.caller import is_loopback
from rmos_runs.gateway.errors import RateExceeded
from rmos_runs.gateway.keys import KeyExists, KeyNotFound, KeyRing, Role, add_key, read_keys, revoke_key
from rmos_runs.gateway.prefer import wait_seconds
from rmos_runs.gateway.rates import Rates
from rmos_runs.gateway.threads import Threads
from rmos_runs.gateway.watch import JobWatch
from rmos_shared.errors import BrokerUnavailable, InvalidRequest, StoreUnavailable
from rmos_shared.jobs.model import JobState

NOW = datetime(2026, 8, 1, tzinfo=UTC)


# Prefer


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=5", 5.0),
        ("Wait=5", 5.0),
        ('wait="5"', 5.0),
        ("respond-async, wait=5; foo=bar", 5.0),
        ("wait=5, wait=7", 5.0),
        ("wait=0", 0.0),
        ("wait=99", 30.0),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait", None),
        ("wait=", None),
        ("awaits=5", None),
        ("wait=99999999999", None),
        ("wait=\u0665", None),
    ],
)
def test_a_preference_to_wait_is_read_as_its_standard_says(header: str | None, seconds: float | None) -> None:
    assert wait_seconds(header, 30.0) == seconds


# Rates


class StoppedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_a_bucket_lets_a_burst_through_and_fills_at_its_rate() -> None:
    clock = StoppedClock()
    rates = Rates(per_second=2.0, burst=3, clock=clock)
    for _ in range(3):
        rates.spend("a")
    with pytest.raises(RateExceeded) as refused:
        rates.spend("a")
    assert refused.value.retry_after_seconds == 0.5
    rates.spend("b")  # each has a bucket of its own
    clock.sleep(0.5)
    rates.spend("a")
    with pytest.raises(RateExceeded):
        rates.spend("a")
    clock.sleep(1_000)
    for _ in range(3):
        rates.spend("a")
    with pytest.raises(RateExceeded):
        rates.spend("a")


# Keys


def test_a_key_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    token = add_key(file, "ana", [Role.READ, Role.READ, Role.AUDIT], now=NOW)
    (key,) = read_keys(file)
    assert (key.name, key.roles) == ("ana", [Role.READ, Role.AUDIT])
    assert token not in file.read_text()
    assert len(token) >= 48
    ring = KeyRing(file)
    assert ring.find(token) == key
    for other in ("", token[:-1], token + "x", "ä", "\udcff", key.sha256):
        assert ring.find(other) is None
    assert {path.name for path in tmp_path.iterdir()} == {"keys.jsonl", "keys.jsonl.lock"}


def test_names_and_roles_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    for name in ("", "Ana", "a b", "ana\n", "../x", "x" * 65, "system:auto"):
        with pytest.raises(InvalidRequest):
            add_key(file, name, [Role.READ], now=NOW)
    with pytest.raises(InvalidRequest):
        add_key(file, "ana", [], now=NOW)
    assert not file.exists()


def test_a_name_is_used_again_only_once_its_key_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    first = add_key(file, "ana", [Role.READ], now=NOW)
    with pytest.raises(KeyExists):
        add_key(file, "ana", [Role.READ], now=NOW)
    revoke_key(file, "ana", now=NOW)
    with pytest.raises(KeyNotFound):
        revoke_key(file, "ana", now=NOW)
    second = add_key(file, "ana", [Role.READ], now=NOW)
    ring = KeyRing(file)
    assert ring.find(first) is None
    assert ring.find(second) is not None
    assert ring.configured


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.evil.example", False)),
        ("", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_else(host: str, own: bool) -> None:  # noqa: FBT001 - a table
    assert is_loopback(host) is own


# Lines


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(0, 60), max_size=20))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(lines)
    whole = data.split(b"\n") if data else []
    if whole and not whole[-1]:
        whole.pop()
    reader, got, places = Lines(20), [], sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in pairwise(places):
        got += reader.feed(data[begin:end])
    got += reader.end()
    assert got == [(number, line if len(line) <= 20 else None) for number, line in enumerate(whole, 1)]


# Waiting


class SlowLedger:
    """A ledger that answers what a test says."""

    def __init__(self) -> None:
        self.packets = 0
        self.done: set[str] = set()
        self.away = False

    async def states(self, job_ids: Sequence[str]) -> list[str | None]:
        self.packets += 1
        if self.away:
            raise BrokerUnavailable("away")
        return ["done" if job_id in self.done else "running" for job_id in job_ids]


def test_a_thousand_waits_ask_the_ledger_in_few_packets() -> None:
    async def wait() -> list[JobState | None]:
        watch = JobWatch(ledger)
        waits = [asyncio.create_task(watch.wait(f"j{number}", 20)) for number in range(1_000)]
        await asyncio.sleep(0)
        ledger.done = {f"j{number}" for number in range(1_000)}
        return await asyncio.gather(*waits)

    ledger = SlowLedger()
    records = asyncio.run(wait())
    assert records == [JobState.DONE] * 1_000
    assert ledger.packets <= 4


def test_a_wait_ends_in_time_whatever_the_ledger_does() -> None:
    async def wait() -> tuple[JobState | None, JobState | None]:
        watch = JobWatch(ledger)
        pending = await watch.wait("a", 0.05)
        ledger.away = True
        away = await watch.wait("a", 0.05)
        ledger.away, ledger.done = False, {"a"}
        back = await watch.wait("a", 20)
        assert back is JobState.DONE
        watch.close()
        return pending, away

    ledger = SlowLedger()
    assert asyncio.run(wait()) == (None, None)


def test_a_call_that_hangs_is_given_up_and_the_others_go_on() -> None:
    import threading  # noqa: PLC0415 - for one event

    release = threading.Event()

    async def call() -> str:
        threads = Threads(2, timeout_seconds=0.1)
        with pytest.raises(StoreUnavailable):
            await threads.run(release.wait, 20)
        answer = await threads.run(json.dumps, "well")
        release.set()
        threads.close()
        return answer

    assert asyncio.run(call()) == '"well"'


def test_an_iterator_is_read_in_threads_to_its_end() -> None:
    async def read() -> list[int]:
        threads, source, got = Threads(1, timeout_seconds=5), iter([1, 2, 3]), []
        while (value := await threads.next_of(source)) is not None:
            got.append(value)
        threads.close()
        return got

    assert asyncio.run(read()) == [1, 2, 3]
