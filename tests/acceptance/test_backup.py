"""A backup is made by the commands that the page shows, all else is lost, and every promise is kept."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from rmos_runs.cli.main import app
from rmos_runs.client import RunsClient
from rmos_runs.local.home import Home
from rmos_runs.local.processes import Pipeline
from rmos_runs.receipt import Receipt
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import JobState, LedgerStats
from rmos_shared.runs.reader import RunReader
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.store.local import LocalStore
from support.embedded_server import EmbeddedServer

#: Two starts of a pipeline.
pytestmark = pytest.mark.timeout(300)
PAGE = Path(__file__).parents[2] / "docs/how-to/backup.md"
#: Speaks to the server as redis-cli does; the wheel of the embedded server brings none.
REDIS_CLI = """\
#!{python} -I
import os, socket, sys

def send(*words):
    told = [word.encode() for word in words]
    parts = [b"$%d\\r\\n%s\\r\\n" % (len(word), word) for word in told]
    line.sendall(b"*%d\\r\\n" % len(told) + b"".join(parts))
    kind = answer.readline()
    assert kind[:1] != b"-", kind
    return answer.read(int(kind[1:]) + 2).decode() if kind[:1] == b"$" else kind[1:].decode()

line = socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=20)
answer = line.makefile("rb")
send("AUTH", os.environ["REDISCLI_AUTH"])
sys.stdout.write(send(*sys.argv[1:]))
"""


def shown(title: str) -> list[list[str]]:
    """Return the commands of each console block below a heading of the page."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert section, title
    blocks = re.findall(r"^```console\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    return [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in blocks]


def run(commands: list[str], environment: dict[str, str]) -> None:
    """Run what is shown, as one script that ends at the first failure."""
    done = subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rmos(command: str, *codes: int) -> str:
    """Run an ``rmos`` call that is shown, in this process; variables may stand before it."""
    words = shlex.split(command)
    start = words.index("rmos")
    variables = dict(word.split("=", 1) for word in words[:start])
    home = os.environ["RMOS_HOME"]
    done = CliRunner().invoke(app, words[start + 1 :], env=variables | {"RMOS_HOME": home})
    assert done.exit_code in (codes or (0,)), done.output
    return done.output


def stats_of(url: str) -> LedgerStats:
    with closing(JobLedger.connect(BrokerSettings.load(broker_url=url))) as ledger:
        return ledger.stats()


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give what is shown its two places and a ``redis-cli``."""
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "redis-cli").write_text(REDIS_CLI.format(python=sys.executable))
    (tools / "redis-cli").chmod(0o755)
    monkeypatch.setenv("RMOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BACKUP", str(tmp_path / "backup"))
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


class Producer:
    """Goes on accepting runs until it is told to stop."""

    def __init__(self, url: str, requests: list[dict[str, Any]]) -> None:
        self.receipts: list[Receipt] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on, args=(url, requests))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=60)

    def _go_on(self, url: str, requests: list[dict[str, Any]]) -> None:
        with RunsClient.connect(broker_url=url) as client:
            for request in requests:
                self.receipts.append(client.create_run(request))
                if self._stopped.wait(0.02):
                    return


@pytest.fixture
def backed_up(
    environment: dict[str, str], sample_requests: list[dict[str, Any]], eventually: Callable[..., None]
) -> tuple[list[Receipt], list[Receipt]]:
    """Back up while jobs are under way, and lose the home; return what was accepted before, and meanwhile."""
    home = Home(Path(environment["RMOS_HOME"]))
    with Pipeline(home) as pipeline:
        url = pipeline.start().broker_url
        server = urlsplit(url)
        with RunsClient.connect(broker_url=url) as client:
            before = [*client.create_runs(sample_requests[:200], explain=True)]
        eventually(lambda: stats_of(url).done >= 205, 90)
        # Frozen with jobs in its hands, so that some are certainly under way.
        os.kill(pipeline.supervisor.pids()["worker-advise"], signal.SIGSTOP)
        with Producer(url, sample_requests[200:]) as producer:
            copy, check = shown("Back up while it is up")
            run(copy, environment | {"PORT": str(server.port), "REDISCLI_AUTH": server.password or ""})
            rmos(os.path.expandvars(check[0]), 0, CorruptArtifact.exit_code)
        for pid in pipeline.supervisor.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home.root)
    return before, producer.receipts


def test_a_restored_backup_keeps_every_promise(
    backed_up: tuple[list[Receipt], list[Receipt]],
    environment: dict[str, str],
    eventually: Callable[..., None],
    tmp_path: Path,
) -> None:
    before, meanwhile = backed_up
    assert meanwhile
    # A look at the ledger of the backup before anybody works on it.
    shutil.copytree(tmp_path / "backup/valkey", tmp_path / "look")
    with EmbeddedServer(tmp_path / "look") as server:
        saved = stats_of(server.url)
    assert saved.invariant
    assert saved.pending > 0

    restore, look = shown("Restore")[:2]
    assert restore[-1] == "rmos up"
    run(restore[:-1], environment)
    home = Home(Path(environment["RMOS_HOME"]))
    with Pipeline(home) as pipeline:
        url = pipeline.start().broker_url
        eventually(lambda: stats_of(url).pending == 0, 90, told=lambda: str(stats_of(url)))
        assert look == ["rmos doctor", "rmos runs verify --all"]
        assert [", 0 damaged" in rmos(command) for command in look] == [True, True]
        stats = stats_of(url)
        assert stats.invariant
        assert (stats.dead, stats.raw) == (0, 0)
        reader = RunReader(LocalStore(home.runs_dir))
        with closing(JobLedger.connect(BrokerSettings.load(broker_url=url))) as ledger:
            kept = [receipt for receipt in [*before, *meanwhile] if ledger.find(receipt.job_id)]
            assert {receipt.job_id for receipt in before} <= {receipt.job_id for receipt in kept}
            for receipt in kept:
                assert ledger.get(receipt.job_id).state is JobState.DONE
                assert reader.get_artifact(receipt.run_id).run_id == receipt.run_id
            for receipt in before:
                assert ledger.get(receipt.last_job_id).state is JobState.DONE
    links = [reader.links(receipt.run_id) for receipt in before]
    assert [len(found) for found in links] == [1] * len(before), "none lost, none doubled"
    held = {file.name for file in home.advisory_dir.rglob("*") if file.is_file()}
    for (link,) in links:
        assert any(link.advisory_id in name for name in held), "the advisory that it names is there"
    stored = [*home.runs_dir.glob("2*/*.json")]
    runs = [file.stem for file in stored if "_advisory_" not in file.name]
    assert len(runs) == len({*runs}) >= len(kept)
    assert home.root.stat().st_mode & 0o077 == 0, "closed to others, as it was"


def test_the_other_way_shown_is_a_copy_of_the_whole_home() -> None:
    assert shown("Back up with everything stopped") == [["cp -a $RMOS_HOME $BACKUP"]]
