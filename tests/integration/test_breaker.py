"""The circuit breaker on a real server: its state belongs to all workers together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rmos_shared.errors import BreakerOpen
from rmos_worker.advisories.breaker import Breaker, Outage, Reading, RedisBreaker

OTHER_PROCESS = """
import sys, redis
from rmos_worker.advisories.breaker import RedisBreaker
breaker = RedisBreaker(redis.Redis.from_url(sys.argv[1]), failures=3, open_seconds=60, probe_seconds=60)
for _ in range(3):
    breaker.record_failure("X")
"""


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as connected:
        yield connected


def make(client: redis.Redis, **changes: Any) -> RedisBreaker:
    return RedisBreaker(client, **({"failures": 3, "open_seconds": 60, "probe_seconds": 60} | changes))


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except BreakerOpen:
        return True
    return False


def fail(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        breaker.record_failure("X")


def end_hold(client: redis.Redis) -> None:
    """Let the hold's time pass, without sleeping."""
    client.delete("rmos:breaker:advisory:hold")


def test_opens_after_failures_in_a_row_over_all_workers(client: redis.Redis) -> None:
    one, two = make(client), make(client)
    one.record_failure("X")
    two.record_failure("X")
    assert not is_open(one)
    one.record_failure("X")
    assert is_open(one)
    assert is_open(two)


def test_a_success_starts_the_count_anew(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker, 2)
    breaker.record_success()
    fail(breaker, 2)
    assert not is_open(breaker)


def test_the_first_call_after_the_hold_is_the_one_probe(client: redis.Redis) -> None:
    breaker, other = make(client), make(client)
    fail(breaker)
    end_hold(client)
    breaker.check()
    with pytest.raises(BreakerOpen):
        other.check()


def test_state_is_shared_with_another_process(client: redis.Redis, broker_url: str) -> None:
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, broker_url], check=True, timeout=60)
    with pytest.raises(BreakerOpen):
        make(client).check()


def test_says_how_long_it_stays_open(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker)
    with pytest.raises(BreakerOpen) as caught:
        breaker.check()
    assert caught.value.retry_after_seconds == pytest.approx(60, abs=10)


def test_the_hold_ends_by_itself(client: redis.Redis) -> None:
    breaker = make(client, open_seconds=0.2)
    fail(breaker)
    assert is_open(breaker)
    time.sleep(0.3)
    assert not is_open(breaker)


def test_half_open_lets_exactly_one_call_probe(client: redis.Redis) -> None:
    breakers = [make(client) for _ in range(16)]
    fail(breakers[0])
    end_hold(client)
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(is_open, breakers)) == [False] + [True] * 15


def test_a_probe_that_succeeds_closes_it(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker)
    end_hold(client)
    breaker.check()
    breaker.record_success()
    assert not is_open(breaker)
    # All that is left says when.
    assert client.keys("rmos:breaker:*") == [b"rmos:breaker:advisory:ended"]


def test_a_probe_that_fails_opens_it_again(client: redis.Redis) -> None:
    breaker = make(client, probe_seconds=600)
    fail(breaker)
    held = []
    for _ in range(6):
        end_hold(client)
        breaker.check()
        breaker.record_failure("X")
        with pytest.raises(BreakerOpen) as caught:
            breaker.check()
        held.append(caught.value.retry_after_seconds)
    # For longer each time, and no more than eight times as long as at first.
    assert held == [pytest.approx(seconds, abs=10) for seconds in (120, 240, 480, 480, 480, 480)]


def test_an_outage_begins_and_ends_once_over_all_workers(client: redis.Redis) -> None:
    breakers = [make(client) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda breaker: breaker.record_failure("X"), breakers))
        assert sorted(outage.value for outage in told) == [0, 0, 1, *[2] * 13]
        ended = list(pool.map(lambda breaker: breaker.record_success(), breakers))
    assert sum(lasted is not None for lasted in ended) == 1
    assert breakers[0].record_success() is None


def test_an_outage_of_another_kind_is_told_again(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker)
    told = []
    for why in ("X", "Y", "Y", "X"):
        end_hold(client)
        breaker.check()
        told.append(breaker.record_failure(why))
    assert told == [Outage.LASTS, Outage.BEGINS, Outage.LASTS, Outage.BEGINS]


def test_a_reading_changes_nothing_and_says_when_a_probe_may_go(client: redis.Redis) -> None:
    breaker = make(client)
    assert breaker.read() == Reading(open=False, holds=False, ended_ms=0)
    fail(breaker, 2)
    assert breaker.read() == Reading(open=False, holds=False, ended_ms=0)
    fail(breaker, 1)
    assert breaker.read() == Reading(open=True, holds=True, ended_ms=0)
    end_hold(client)
    assert breaker.read() == breaker.read() == Reading(open=True, holds=False, ended_ms=0)
    breaker.check()
    breaker.record_success()
    seconds, _ = client.time()
    read = breaker.read()
    assert (read.open, read.holds) == (False, False)
    assert read.ended_ms / 1000 == pytest.approx(seconds, abs=5)


def test_a_probe_that_never_reports_gives_way(client: redis.Redis) -> None:
    breaker = make(client, probe_seconds=0.2)
    fail(breaker)
    end_hold(client)
    breaker.check()
    assert is_open(breaker)
    time.sleep(0.3)
    assert not is_open(breaker)


def test_late_failures_do_not_keep_it_open_longer(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker)
    client.pexpire("rmos:breaker:advisory:hold", 5_000)
    breaker.record_failure("X")
    assert client.pttl("rmos:breaker:advisory:hold") <= 5_000


def test_prefixes_keep_breakers_apart(client: redis.Redis) -> None:
    fail(make(client, prefix="a:"))
    assert is_open(make(client, prefix="a:"))
    assert not is_open(make(client, prefix="b:"))


def test_survives_a_server_that_forgot_its_scripts(client: redis.Redis) -> None:
    breaker = make(client)
    fail(breaker)
    client.script_flush()
    assert is_open(breaker)


@pytest.mark.parametrize("broken", ["unreachable", "wrong_type"])
def test_calls_pass_when_redis_is_no_help(
    client: redis.Redis, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    if broken == "unreachable":
        # Port 1 of loopback is never served.
        lost = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0), password="s3cret")
        breaker = make(lost)
    else:
        client.rpush("rmos:breaker:advisory:failures", "x")
        breaker = make(client)
    breaker.check()
    breaker.record_failure("X")
    assert breaker.record_success() is None
    assert breaker.read() == Reading(open=False, holds=False, ended_ms=0)
    assert "breaker.unreachable" in caplog.text
    assert "s3cret" not in caplog.text
