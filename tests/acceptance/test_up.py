"""``rmos up`` when its parts, its terminal or it itself are taken away, on real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from rmos_runs.client import RunsClient
from rmos_runs.local.home import Addresses, Home
from rmos_runs.local.ports import is_free
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.keys import generate, load_file
from rmos_shared.jobs.model import LedgerStats
from rmos_shared.store.local import LocalStore

RMOS = (sys.executable, "-c", "from rmos_runs.cli import main; main()")
Eventually = Callable[..., None]


class Up:
    """``rmos up`` on a home, started as a shell would."""

    def __init__(self, home: Home, **options: Any) -> None:
        self.home = home
        self.output = home.root.with_suffix(".log")
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*RMOS, "up", "--no-flower", "--home", str(home.root)],
                **{"env": clean(), "stdout": log, "stderr": log, "start_new_session": True, **options},
            )

    @property
    def addresses(self) -> Addresses:
        told = self.home.addresses()
        assert told is not None
        return told

    def wait(self) -> Addresses:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            told = self.home.addresses()
            if told is not None and told.pid == self.process.pid:
                return told
            time.sleep(0.05)
        pytest.fail(f"rmos up did not start: {self.output.read_text()}")

    def client(self) -> RunsClient:
        return RunsClient.connect(broker_url=self.addresses.broker_url)

    def pids_of(self, word: str) -> set[int]:
        return {pid for pid, line in processes(self.home).items() if word in line}

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def clean(**variables: str) -> dict[str, str]:
    # Short leases, so that a killed worker's jobs are back within the test's time.
    quick = {"RMOS_LEASE_SECONDS": "2", "RMOS_HEARTBEAT_SECONDS": "0.5"}
    return {n: v for n, v in os.environ.items() if not n.startswith("RMOS_")} | quick | variables


def processes(home: Home) -> dict[int, str]:
    """Return the command lines of the processes that know this home, by its paths or its ports."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = (directory / "environ").read_bytes().decode(errors="replace")
            if line and (str(home.root) in line or str(home.root) in known or _is_server(home, line)):
                found[int(directory.name)] = line
    found.pop(os.getpid(), None)
    return found


def _is_server(home: Home, line: str) -> bool:
    port = Home(home.root)._recall().get("ports", {}).get("valkey")
    return port is not None and f"127.0.0.1:{port}" in line


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    home = Home(tmp_path / "home")
    with ExitStack() as started:

        def begin(**options: Any) -> Up:
            up = Up(home, **options)
            started.callback(end, up)
            return up

        yield begin


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for the tests that leave it as it was; started so that all would be open to others."""
    up = Up(Home(tmp_path_factory.mktemp("running") / "home"), umask=0)
    try:
        up.wait()
        yield up
        assert up.stop() == 0
        assert processes(up.home) == {}
    finally:
        end(up)


def end(up: Up) -> None:
    if up.process.poll() is None:
        up.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            up.process.wait(40)
    up.process.kill()
    up.process.wait(5)
    for pid in processes(up.home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_done(stats: LedgerStats, jobs: int) -> None:
    """Hold that so many were accepted and all are done, and with them a few seals of the audit log."""
    assert jobs <= stats.accepted <= jobs + 5
    assert (stats.done + stats.pending, stats.invariant) == (stats.accepted, True)
    assert stats.pending <= 1, "at most a seal that has just come"


def test_a_killed_server_is_back_on_its_port_with_all_it_had(
    running: Up, sample_requests: list[dict[str, Any]], eventually: Eventually
) -> None:
    """F3: nobody started it again, and ``rmos up`` said nothing."""
    up, addresses = running, running.addresses
    (server,) = up.pids_of("valkey-server")
    with up.client() as client:
        earlier = client.ledger.stats().accepted
        before = list(client.create_runs(sample_requests[:50], explain=True))
        os.kill(server, signal.SIGKILL)
        eventually(lambda: up.pids_of("valkey-server") - {server}, told=lambda: str(processes(up.home)))
        after = list(client.create_runs(sample_requests[50:60], explain=True))
        for receipt in (*before, *after):
            assert client.wait(str(receipt.explain_job_id), 60).state == "done"
        stats = client.ledger.stats()
    assert_done(stats, earlier + 120)
    assert up.addresses == addresses, "the same port, the same password"
    assert "valkey ended (signal 9) and was started again" in up.output.read_text()


def test_after_a_killed_supervisor_nothing_is_left_and_the_next_one_goes_on(
    start: Callable[..., Up], sample_requests: list[dict[str, Any]], eventually: Eventually
) -> None:
    """F4: the old server stayed, and the next one opened the same files under another address."""
    up = start()
    addresses = up.wait()
    with up.client() as client:
        receipts = list(client.create_runs(sample_requests[:200], explain=True))
        up.process.send_signal(signal.SIGKILL)
        up.process.wait(5)
        # At once, while the old ones are still ending.
        following = start()
        assert following.wait().broker_url == addresses.broker_url
        assert up.pids_of(" up ") == {following.process.pid}
        for receipt in receipts:
            assert client.wait(str(receipt.explain_job_id), 60).state == "done"
        stats = client.ledger.stats()
    assert_done(stats, 400)
    following.process.send_signal(signal.SIGKILL)
    following.process.wait(5)
    eventually(lambda: processes(up.home) == {}, 15, told=lambda: str(processes(up.home)))


def test_a_second_one_on_the_same_home_says_who_runs_and_touches_nothing(running: Up) -> None:
    """F4: two servers on one append-only file each lost what the other wrote."""
    up, addresses = running, running.addresses
    before = up.pids_of("")
    for command in (("up",), ("demo",)):
        done = subprocess.run(
            [*RMOS, *command, "--home", str(up.home.root)],
            env=clean(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 5
        assert f"HOME_TAKEN: {up.home.root} is in use: process {up.process.pid} runs on it" in done.stderr
    assert up.pids_of("") >= before
    assert up.pids_of(" up ") | up.pids_of(" demo ") == {up.process.pid}
    assert up.addresses == addresses
    assert not up.home.audit_key_file.exists()  # its log goes on as it began


def test_one_that_ends_again_and_again_is_held_back_and_the_others_go_on(
    running: Up, sample_requests: list[dict[str, Any]], eventually: Eventually
) -> None:
    """F9: ten ends of one process within a minute stopped everything."""
    up = running

    def held_back() -> bool:
        for pid in up.pids_of(" beat "):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return "beat" in up.addresses.held_back

    eventually(held_back, told=up.output.read_text)
    said = "beat ended (signal 9) and is held back for 1 s, for it ends again and again"
    eventually(lambda: said in up.output.read_text(), told=up.output.read_text)
    assert "beat ended (signal 9) and was started again" in up.output.read_text()
    done = subprocess.run(
        [*RMOS, "doctor", "--json", "--home", str(up.home.root)],
        env=clean(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    # It may have been started once more by now.
    assert rows["processes"]["detail"] in {"end again and again: beat", "all of rmos up run"}
    with up.client() as client:
        receipt = client.create_run(sample_requests[0], explain=True)
        assert client.wait(str(receipt.explain_job_id), 30).state == "done"
    eventually(lambda: up.addresses.held_back == ())
    assert up.pids_of(" beat ")


def test_a_home_is_closed_to_others_and_its_server_asks_for_the_password(
    running: Up, sample_requests: list[dict[str, Any]]
) -> None:
    up, addresses = running, running.addresses
    with up.client() as client:
        receipt = client.create_run(sample_requests[0], explain=True)
        assert client.wait(str(receipt.explain_job_id), 30).state == "done"
    for path in (up.home.root, *up.home.root.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path == up.home.runs_dir / "_store.json", f"{path}: {mode:o}"
    port = addresses.broker_url.rpartition(":")[2]
    with (
        redis.Redis.from_url(f"redis://127.0.0.1:{port}") as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    password = addresses.broker_url.split(":")[2].partition("@")[0]
    assert password not in up.output.read_text()
    assert not [line for line in processes(up.home).values() if password in line]
    sourced = subprocess.run(
        ["sh", "-c", f". {up.home.root}/env && printf %s $RMOS_BROKER_URL"],
        env=clean(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert sourced.stdout == addresses.broker_url


def test_the_audit_key_is_given_to_the_process_that_seals_and_to_no_other(
    start: Callable[..., Up], tmp_path: Path, sample_requests: list[dict[str, Any]], eventually: Eventually
) -> None:
    signer = generate(tmp_path / "key.pem", "any")
    pem = (tmp_path / "key.pem").read_text()
    # The text outranks the file.
    told = {"RMOS_AUDIT_KEY": pem, "RMOS_AUDIT_KEY_FILE": str(tmp_path / "no.pem")}
    up = start(env=clean(**told, RMOS_AUDIT_SEAL_SECONDS="1"))
    up.wait()
    with up.client() as client:
        receipt = client.create_run(sample_requests[0])
        assert client.wait(receipt.job_id, 30).state == "done"
        eventually(lambda: client.ledger.unsealed.state().signed_by, 30)
        signed_by = client.ledger.unsealed.state().signed_by
    key = load_file(tmp_path / "key.pem", origin_of(LocalStore(up.home.runs_dir).identity().store_id))
    assert signed_by == key.verifier.key_id.hex() != signer.verifier.key_id.hex(), "it is named by the log"
    holders = {line for pid, line in processes(up.home).items() if has_key(pid)}
    # The shell gave it to ``rmos up`` itself.
    assert {" up " in line or "audit@" in line for line in holders} == {True}, holders
    assert len(holders) == 2
    assert len(processes(up.home)) > len(holders)


def has_key(pid: int) -> bool:
    with suppress(OSError):
        return b"RMOS_AUDIT_KEY" in (Path("/proc") / str(pid) / "environ").read_bytes()
    return False


def test_a_stop_keeps_the_state_and_a_port_that_another_took_is_named_and_not_exchanged(
    start: Callable[..., Up], sample_requests: list[dict[str, Any]]
) -> None:
    up = start()
    port = int(up.wait().broker_url.rpartition(":")[2].partition("/")[0])
    with up.client() as client:
        receipt = client.create_run(sample_requests[0], explain=True)
        record = client.wait(str(receipt.explain_job_id), 60)
    assert record.state == "done"
    assert up.stop() == 0
    assert up.home.addresses() is None
    following = start()
    following.wait()
    with following.client() as client:
        assert client.job(str(receipt.explain_job_id)) == record
    assert following.stop() == 0
    assert is_free(port)
    squatter = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"])
    try:
        following = start()
        assert following.process.wait(60) == 6
        assert f"port {port} of 127.0.0.1, which valkey has on" in following.output.read_text()
    finally:
        squatter.kill()
        squatter.wait(5)


def test_a_terminal_that_goes_away_stops_everything(start: Callable[..., Up], eventually: Eventually) -> None:
    terminal, own = pty.openpty()
    up = start(
        stdin=own,
        stdout=own,
        stderr=own,
        preexec_fn=lambda: __import__("fcntl").ioctl(own, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(own)
    up.wait()
    os.close(terminal)
    assert up.process.wait(60) == 0
    eventually(lambda: processes(up.home) == {}, told=lambda: str(processes(up.home)))


def test_output_that_nobody_reads_any_more_ends_nothing(
    start: Callable[..., Up], eventually: Eventually
) -> None:
    reader, writer = os.pipe()
    up = start(stdout=writer, stderr=writer)
    os.close(writer)
    up.wait()
    os.close(reader)
    (beat,) = up.pids_of(" beat ")
    os.kill(beat, signal.SIGKILL)
    eventually(lambda: up.pids_of(" beat ") - {beat})
    assert up.process.poll() is None
