"""The outbox as its page shows it, on both databases: killed anywhere, every committed row is one run."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from rmos_runs.client import RunsClient
from rmos_runs.errors import BrokerUnavailable
from rmos_runs.ids import new_run_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.producer import ProducerSettings
from support.postgres import PostgresServer
from support.proxy import proxied
from support.runs import Runs
from support.worker import StartWorker

PAGE = Path(__file__).parents[2] / "docs/how-to/outbox.md"
REQUEST = {"request_id": "order-7", "mode": "saw", "tool_id": "saw:veneer_160"}
Eventually = Callable[..., None]

#: Kills the drain at one of its own steps, the first time that it gets there.
KILLED = """
import os, signal, sys
import {module} as outbox
from rmos_runs import RunsClient
step = sys.argv.pop(1)
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if step == "before the broker":
    RunsClient.create_runs = die
if step == "half way":
    real = RunsClient.create_runs
    def some(self, requests, **kwargs):
        for number, receipt in enumerate(real(self, requests, **kwargs)):
            if number == 1:
                die()
            yield receipt
    RunsClient.create_runs = some
if step == "between accept and mark":
    send = outbox.send
    outbox.send = lambda *args: (send(*args), die())
outbox.main(sys.argv[1])
"""


def shown(name: str) -> str:
    """Return the block of the page that begins with this name."""
    found = re.findall(
        rf"^```\w+\n(?:#|--) {re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(found) == 1, name
    return str(found[0])


class Outbox:
    """The service's database with its outbox, and the module that the page shows for it."""

    def __init__(self, directory: Path, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address
        self.directory = directory
        self.module_name = f"outbox_{kind}"
        file = directory / f"{self.module_name}.py"
        file.write_text(shown(file.name))
        spec = importlib.util.spec_from_file_location(self.module_name, file)
        assert spec is not None
        assert spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        with closing(self.connect()) as connection:
            connection.execute(shown(f"{self.module_name}.sql"))
            connection.execute("CREATE TABLE orders (number integer PRIMARY KEY)")
            connection.commit()

    def connect(self) -> Any:
        if self.kind == "sqlite":
            return sqlite3.connect(self.address, timeout=30)
        return psycopg.connect(self.address)

    def put(self, count: int, *, first: int = 0, commit: bool = True) -> list[str]:
        """Place orders, each with its run, in one transaction."""
        with closing(self.connect()) as connection:
            ids = []
            for number in range(first, first + count):
                connection.execute(f"INSERT INTO orders VALUES ({number})")  # noqa: S608 - a number
                ids.append(self.module.put(connection, {**REQUEST, "meta": {"order": number}}))
            if commit:
                connection.commit()
        return ids

    def rows(self) -> list[tuple[str, str | None]]:
        with closing(self.connect()) as connection:
            return list(
                connection.execute("SELECT run_id, refused FROM run_outbox ORDER BY position").fetchall()
            )

    def write(self, request: str) -> None:
        with closing(self.connect()) as connection:
            mark = "?" if self.kind == "sqlite" else "%s"
            statement = f"INSERT INTO run_outbox (run_id, request) VALUES ({mark}, {mark})"  # noqa: S608 - marks
            connection.execute(statement, (new_run_id(), request))
            connection.commit()


class Drains:
    """Processes that drain, none of which outlives the test."""

    def __init__(self, outbox: Outbox, broker_url: str, running: ExitStack) -> None:
        self._outbox = outbox
        self._broker_url = broker_url
        self._running = running

    def start(self, step: str | None = None, **settings: str) -> subprocess.Popen[str]:
        module = self._outbox.module_name
        program = ["-m", module] if step is None else ["-c", KILLED.format(module=module), step]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *program, self._outbox.address],
            cwd=self._outbox.directory,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("RMOS_")},
                "RMOS_BROKER_URL": self._broker_url,
                **settings,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()


@pytest.fixture(params=["sqlite", "postgres"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox:
    if request.param == "sqlite":
        return Outbox(tmp_path, "sqlite", str(tmp_path / "shop.db"))
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return Outbox(tmp_path, "postgres", postgres.new_database())


@pytest.fixture
def drains(outbox: Outbox, broker_url: str) -> Iterator[Drains]:
    with ExitStack() as running:
        yield Drains(outbox, broker_url, running)


@pytest.fixture
def work_off(
    start_worker: StartWorker, advisory_store: Callable[[], Any], ledger: JobLedger, eventually: Eventually
) -> Callable[[], None]:
    """Let a worker do all that was accepted, explanations too."""

    def work() -> None:
        start_worker(advisory_url=advisory_store().url)
        eventually(lambda: ledger.stats().pending == 0, 120, told=ledger.stats)

    return work


def stored(run_log: Runs) -> Counter[str]:
    """Count the artifacts by run id."""
    return Counter(entry.artifact.run_id for entry in run_log.reader.list_runs() if entry.artifact)


def accepted_runs(ledger: JobLedger) -> int:
    return ledger.stats().accepted


@pytest.mark.parametrize("step", ["before the broker", "half way", "between accept and mark"])
def test_a_drain_that_is_killed_and_started_again_makes_one_run_of_each_row(
    *,
    outbox: Outbox,
    drains: Drains,
    work_off: Callable[[], None],
    run_log: Runs,
    ledger: JobLedger,
    eventually: Eventually,
    step: str,
) -> None:
    ids = outbox.put(5)
    outbox.put(3, first=10, commit=False)
    killed = drains.start(step, RMOS_ACCEPT_BATCH_JOBS="2")
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert [run_id for run_id, _ in outbox.rows()] == ids, "nothing is marked yet"
    before = accepted_runs(ledger)
    assert before == {"before the broker": 0, "half way": 2, "between accept and mark": 5}[step]

    drains.start()
    eventually(lambda: outbox.rows() == [])
    # What was accepted twice is two jobs, and still one run.
    assert accepted_runs(ledger) == before + 5
    work_off()
    assert stored(run_log) == Counter(ids)
    assert sum(1 for _ in run_log.reader.list_links()) == len(ids)
    assert (ledger.stats().dead, ledger.stats().invariant) == (0, True)


def test_drains_killed_at_random_while_rows_come_lose_and_double_nothing(
    *,
    outbox: Outbox,
    drains: Drains,
    work_off: Callable[[], None],
    run_log: Runs,
    ledger: JobLedger,
    eventually: Eventually,
) -> None:
    ids: list[str] = []
    for turn in range(6):
        ids += outbox.put(40, first=turn * 40)
        pair = [drains.start(), drains.start()]
        deadline = time.monotonic() + random.uniform(0.2, 0.9)  # noqa: S311 - any moment will do
        while time.monotonic() < deadline and outbox.rows():
            time.sleep(0.02)
        for process in pair:
            process.kill()
    drains.start()
    eventually(lambda: outbox.rows() == [])
    work_off()
    assert stored(run_log) == Counter(ids)
    assert sum(1 for _ in run_log.reader.list_links()) == len(ids)
    assert ledger.stats().dead == 0


def test_a_service_that_is_killed_after_its_commit_has_its_run(
    outbox: Outbox, drains: Drains, ledger: JobLedger, eventually: Eventually
) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(outbox.directory)!r})
import {outbox.module_name} as outbox
if {outbox.kind!r} == "sqlite":
    import sqlite3
    connection = sqlite3.connect(sys.argv[1])
else:
    import psycopg
    connection = psycopg.connect(sys.argv[1])
outbox.put(connection, {REQUEST!r})
if sys.argv[2] == "after":
    connection.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
    for moment in ("before", "after"):
        done = subprocess.run([sys.executable, "-c", script, outbox.address, moment], check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert len(outbox.rows()) == (moment == "after")
    drains.start()
    eventually(lambda: outbox.rows() == [])
    assert accepted_runs(ledger) == 1


def test_while_the_broker_is_away_the_rows_stay_and_go_when_it_is_back(
    outbox: Outbox, broker_url: str, ledger: JobLedger, eventually: Eventually
) -> None:
    outbox.put(3)
    with proxied(broker_url) as proxy, ExitStack() as running:
        proxy.refuse(3_600)
        url = f"redis://127.0.0.1:{proxy.port}/0"
        drain = Drains(outbox, url, running).start(RMOS_BROKER_TIMEOUT_SECONDS="0.5")
        assert drain.stderr is not None
        assert drain.stderr.readline().startswith("the outbox waits: ")
        assert len(outbox.rows()) == 3
        proxy.heal()
        eventually(lambda: outbox.rows() == [], 60)
        assert drain.poll() is None
    assert accepted_runs(ledger) == 3


def test_a_row_that_can_never_be_accepted_is_set_aside_and_holds_up_no_other(
    outbox: Outbox, drains: Drains, ledger: JobLedger, eventually: Eventually
) -> None:
    outbox.put(2)
    outbox.write('{"status": "hunter2"}')
    outbox.write("no JSON at all")
    outbox.write("[1]")
    outbox.put(2, first=10)
    drains.start()
    eventually(lambda: accepted_runs(ledger) >= 4 and len(outbox.rows()) == 3)
    assert accepted_runs(ledger) >= 4
    reasons = [reason for _, reason in outbox.rows()]
    assert all(reasons)
    assert "status" in str(reasons[0])
    assert "hunter2" not in "".join(map(str, reasons))


def test_a_row_that_is_corrected_is_sent(
    outbox: Outbox, drains: Drains, ledger: JobLedger, eventually: Eventually
) -> None:
    outbox.write("[1]")
    drains.start()
    eventually(lambda: [reason for _, reason in outbox.rows() if reason])
    with closing(outbox.connect()) as connection:
        connection.execute(f"UPDATE run_outbox SET refused = NULL, request = '{json.dumps(REQUEST)}'")  # noqa: S608 - our own
        connection.commit()
    eventually(lambda: outbox.rows() == [])
    assert accepted_runs(ledger) == 1


def test_drains_on_postgres_take_different_rows(postgres_url: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "postgres", postgres_url)
    ids = outbox.put(150)
    seen: list[list[str]] = []

    class Meanwhile:
        """A client that, in the middle of one drain, runs another."""

        def create_runs(self, requests: Iterator[Any], **_: Any) -> Iterator[None]:
            seen.append([request["run_id"] for request in requests])
            if len(seen) == 1:
                with closing(outbox.connect()) as other:
                    other.autocommit = True
                    outbox.module.drain(other, self)
            return iter(())

    with closing(outbox.connect()) as connection:
        connection.autocommit = True
        assert outbox.module.drain(connection, Meanwhile()) == 100
    assert seen == [ids[:100], ids[100:]]
    assert outbox.rows() == []


def test_a_drain_ends_when_its_database_goes_and_no_row_is_lost(
    postgres: PostgresServer, tmp_path: Path, broker_url: str, ledger: JobLedger, eventually: Eventually
) -> None:
    outbox = Outbox(tmp_path, "postgres", postgres.new_database())
    with ExitStack() as running:
        drain = Drains(outbox, broker_url, running).start()
        outbox.put(1)
        eventually(lambda: outbox.rows() == [])
        outbox.put(3, first=10, commit=True)
        postgres.kill()
        try:
            assert drain.wait(timeout=60) != 0
        finally:
            postgres.start()
        Drains(outbox, broker_url, running).start()
        eventually(lambda: outbox.rows() == [])
    assert accepted_runs(ledger) >= 4


def test_the_broker_away_is_an_error_of_the_kind_that_the_page_waits_for(outbox: Outbox) -> None:
    outbox.put(1)
    settings = ProducerSettings.load(broker_url="redis://127.0.0.1:1/0", broker_timeout_seconds=0.2)
    with RunsClient.connect(settings) as client, closing(outbox.connect()) as connection:
        if outbox.kind == "postgres":
            connection.autocommit = True
        with pytest.raises(BrokerUnavailable):
            outbox.module.drain(connection, client)
    assert len(outbox.rows()) == 1


def test_a_value_that_json_cannot_carry_never_gets_into_the_outbox(outbox: Outbox) -> None:
    with closing(outbox.connect()) as connection, pytest.raises(ValueError, match="JSON"):
        outbox.module.put(connection, {**REQUEST, "meta": {"x": float("nan")}})
    assert outbox.rows() == []
