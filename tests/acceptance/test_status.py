"""``rmos status`` and ``rmos top`` as a person meets them: on terminals, in a pipe, in an outage."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_runs.operations.status import SystemStatus
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Lease
from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES
from support.command import on_terminal, piped
from support.embedded_server import EmbeddedServer
from support.records import make_link, make_run
from support.runs import Runs
from support.stores import local_store
from support.terminal import Terminal

LEASE = Lease("cnc-shop-1:4711:0123abcd", "1")
FAILURE = Failure(reason="advisory_refused", error_type="AdvisoryRefused", message="\x1b[2Jno")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two runs, one of which waits for a person."""
    Home(tmp_path / "home").init_store()
    runs = Runs(local_store(tmp_path / "home/runs"))
    for approved in (True, False):
        run = make_run()
        runs.writer.put_run(run)
        reviewer = "system:auto_explanation_green" if approved else None
        runs.writer.attach(make_link(run, approved=approved, reviewed_by=reviewer))
    return tmp_path / "home"


def work(url: str) -> list[str]:
    """Have jobs of each kind; return the ids of those that a worker holds."""
    with RunsClient.connect(broker_url=url) as client:
        _, *held, waits, dies = [client.create_run({"mode": "saw", "request_id": "r"}) for _ in range(6)]
        ledger = client.ledger
        ledger.work.beat(LEASE.worker, [], lease_seconds=60, stale_seconds=60)
        ledger.work.beat("cnc-shop-1:4712:4567abcd", [], lease_seconds=60, stale_seconds=60)
        ids = [receipt.job_id for receipt in held]
        ledger.work.claim([*ids, waits.job_id, dies.job_id], LEASE, lease_seconds=60)
        failure = FAILURE.model_copy(update={"reason": "store_unavailable"})
        ledger.work.reschedule(waits.job_id, LEASE, delay_seconds=36_000, spends_retry=True, failure=failure)
        ledger.work.bury(dies.job_id, LEASE, failure=FAILURE)
        return ids


#: What a status says of it, whatever it is printed on.
WORDS = (
    "jobs: accepted 6 = done 0 + dead 1 + discarded 0 + pending 5",
    "runs.create",
    "store_unavailable",
    "in 10 h",
    "advisory_refused",
    "breaker closed",
    "workers: 2, 0 silent, 1 idle",
    "cnc-shop-1:4711:0123abcd  heartbeat ",
    "cnc-shop-1:4712:4567abcd  heartbeat ",
    "reviews: 1 runs wait for a person",
    "index: none",
)


@pytest.mark.parametrize("place", ["80", "160 without colours", "pipe"])
def test_a_status_is_whole_and_cuts_no_id(place: str, home: Path, broker_url: str) -> None:
    held = work(broker_url)
    changes = {"RMOS_BROKER_URL": broker_url, **({"NO_COLOR": "1"} if "without" in place else {})}
    if place == "pipe":
        done = piped("status", home=home, **changes)
    else:
        width = int(place.split(maxsplit=1)[0])
        done = on_terminal("status", home=home, width=width, **changes)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("\x1b[" in done.stdout) == (place == "80"), "colours are for a terminal that wants them"
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert "\x1b" not in text
    for word in (*WORDS, *held, *QUEUES):
        assert word in text, word
    assert {len(found) for found in re.findall(r"[0-9a-f]{12,}", text)} == {32}
    assert "…" not in text
    assert "hidden" not in text
    if place != "pipe":
        assert max(map(len, text.splitlines())) <= width


def test_the_json_is_the_one_model(home: Path, broker_url: str) -> None:
    held = work(broker_url)
    done = piped("status", "--json", home=home, RMOS_BROKER_URL=broker_url)
    assert (done.returncode, done.stderr) == (0, "")
    found = SystemStatus.model_validate_json(done.stdout, strict=False)
    assert found.ledger
    assert found.figures
    assert found.storage
    assert found.reviews
    assert (found.invariant, found.pending, found.ledger.dead) == (True, 5, 1)
    assert {*found.ledger.queues} == {*QUEUES, DEAD_LETTER_QUEUE}
    assert sorted(job.job_id for worker in found.figures.workers for job in worker.jobs) == sorted(held)
    assert found.storage.store_id == local_store(home / "runs").identity().store_id
    assert 0 < found.storage.free_bytes <= found.storage.total_bytes
    assert (found.reviews.runs, found.reviews.more, found.index, found.unreachable) == (1, False, None, [])


def test_what_is_away_is_named_and_the_rest_is_shown(home: Path, broker_url: str) -> None:
    done = piped("status", home=home)
    assert done.returncode == 6
    assert "ledger: not reachable: nothing runs on" in done.stdout
    assert "reviews: 1 runs wait for a person" in done.stdout

    work(broker_url)
    (home / "runs").rename(home / "elsewhere")
    done = piped("status", "--json", home=home, RMOS_BROKER_URL=broker_url)
    assert done.returncode == 6
    told = json.loads(done.stdout)
    assert {one["part"]: one["code"] for one in told["unreachable"]} == {
        "storage": "STORE_UNAVAILABLE",
        "reviews": "STORE_UNAVAILABLE",
    }
    assert (told["storage"], told["ledger"]["accepted"]) == (None, 6)
    assert not (home / "runs").exists()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that a test may stop."""
    (tmp_path / "valkey").mkdir()
    with EmbeddedServer(tmp_path / "valkey") as server:
        yield server


def test_top_follows_what_goes_on_and_outlives_the_broker(home: Path, own_server: EmbeddedServer) -> None:
    held = work(own_server.url)
    with Terminal("top", home=home, RMOS_BROKER_URL=own_server.url) as terminal:
        screen = terminal.wait_for(lambda screen: "accepted 6 = done 0" in screen)
        lines = screen.splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80
        for word in ("q ends", "runs.create", "store_unavailable", "advisory_refused", "free;", *held):
            assert word in screen, word
        with RunsClient.connect(broker_url=own_server.url) as client:
            client.create_run({"mode": "saw", "request_id": "more"})
        terminal.wait_for(lambda screen: "accepted 7 = done 0" in screen)

        terminal.resize(60, 8)
        screen = terminal.wait_for(lambda screen: "sections more; enlarge the terminal" in screen)
        assert len(screen.splitlines()) <= 8
        assert max(map(len, screen.splitlines())) <= 60
        terminal.resize(120, 40)
        terminal.wait_for(lambda screen: "sections more" not in screen)

        own_server.stop()
        terminal.wait_for(lambda screen: "ledger: not reachable" in screen and "free;" in screen)
        own_server.start()
        terminal.wait_for(lambda screen: "accepted 7 = done 0" in screen)

        terminal.press(b"q")
        assert terminal.end() == 0
        assert terminal.is_as_it_was()
        assert "Traceback" not in terminal.output


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_top_leaves_the_terminal_as_it_was(how: str, home: Path, broker_url: str) -> None:
    with Terminal("top", home=home, RMOS_BROKER_URL=broker_url, NO_COLOR="1") as terminal:
        terminal.wait_for(lambda screen: "jobs: accepted 0" in screen)
        assert not terminal.is_as_it_was()
        if how == "Ctrl-C":
            terminal.press(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
        assert terminal.is_as_it_was()
        assert re.findall(r"\x1b\[[0-9;]*[1-9][0-9;]*m", terminal.output) == [], "no colour was asked for"
        assert "Traceback" not in terminal.output


def test_top_without_a_terminal_prints_one_status(
    home: Path, redis_client: redis.Redis, broker_url: str
) -> None:
    redis_client.set("rmos:dead", "garbage")
    done = piped("top", home=home, RMOS_BROKER_URL=broker_url)
    assert (done.returncode, done.stderr) == (7, "")
    assert "ledger: not reachable: the ledger's key rmos:dead is a string" in done.stdout
    assert "reviews: 1 runs wait for a person" in done.stdout
    assert "\x1b" not in done.stdout
