"""The producer process: sends real requests at a steady rate, and goes on from its journal when killed.

``python -m chaos.load JOURNAL RUNS START SECONDS``, on the broker of ``RMOS_BROKER_URL``; START is a Unix
time. It ends once every request is confirmed; a broker that is away, or damaged, only delays it.
"""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from chaos.journal import Journal, Sent, Told, read_journal
from rmos_runs.client import RunsClient
from rmos_shared.errors import RmosError
from rmos_shared.ids import new_uuid7
from rmos_shared.settings.producer import ProducerSettings

_TICK_SECONDS = 0.5
_LARGEST_BATCH = 200
#: Small, so that most calls are several steps and a kill falls between two of them.
_ACCEPT_BATCH = 5
#: Errors after which the same call is made again.
_PASSING = frozenset({"BROKER_UNAVAILABLE", "BROKER_DAMAGED"})


def samples() -> list[dict[str, Any]]:
    """Return the requests that ship with the package, which a real feasibility engine judged."""
    text = (resources.files("rmos_runs") / "samples/create_runs.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


def hash_of(request: dict[str, Any]) -> str:
    """Return the feasibility hash by the contract's own words, not by the code under test."""
    text = json.dumps(
        request.get("feasibility") or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return sha256(text.encode()).hexdigest()


class Load:
    """Sends what is due, and repeats what is not confirmed."""

    def __init__(self, client: RunsClient, journal: Journal, told: Told) -> None:
        self._client = client
        self._journal = journal
        self._samples = samples()
        self._open = {sent.run_id: sent for sent in told.open}
        self._sent = len(told.intents)

    def run(self, runs: int, start: float, seconds: float) -> None:
        while True:
            self._send()
            elapsed = time.time() - start
            if self._sent >= runs:
                break
            due = min(runs, int(runs * elapsed / seconds)) - self._sent
            if due > 0:
                self._intend(min(due, _LARGEST_BATCH))
            else:
                time.sleep(_TICK_SECONDS)
        self._journal.finish()

    def _intend(self, count: int) -> None:
        batch = []
        for index in range(self._sent, self._sent + count):
            sample = index % len(self._samples)
            batch.append(Sent(new_uuid7(), sample, hash_of(self._samples[sample])))
        self._journal.intend(batch)
        self._sent += count
        self._open.update((sent.run_id, sent) for sent in batch)

    def _send(self) -> None:
        while self._open:
            try:
                self._send_open()
            except RmosError as error:
                if error.code not in _PASSING:
                    raise
                time.sleep(0.2)

    def _send_open(self) -> None:
        batch = list(self._open.values())
        requests = [
            {**self._samples[sent.sample], "run_id": sent.run_id, "request_id": f"chaos-{sent.run_id}"}
            for sent in batch
        ]
        if self._sent % 3:
            receipts = self._client.create_runs(requests, explain=True)
        else:
            receipts = (self._client.create_run(request, explain=True) for request in requests)
        for receipt in receipts:
            self._journal.receive(receipt.run_id, receipt.job_id)
            del self._open[receipt.run_id]


def main() -> None:
    path, runs, start, seconds = sys.argv[1:]
    settings = ProducerSettings.load(accept_batch_jobs=_ACCEPT_BATCH)
    told = read_journal(Path(path))
    with RunsClient.connect(settings) as client, Journal(Path(path)) as journal:
        Load(client, journal, told).run(int(runs), float(start), float(seconds))


if __name__ == "__main__":
    main()
