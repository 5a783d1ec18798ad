"""``make bench``: every comparison in turn; exits 1 when one misses its mark beyond its spread."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib import resources
from pathlib import Path

import accept
import explain
import protection
import store
from rich.console import Console
from rich.table import Table

from rmos_producer.embedded import EmbeddedServer
from rmos_shared.models.run import RunRequest
from rmos_worker.artifact import artifact_of


def main() -> int:
    """Run all rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 9
    sample = (resources.files("rmos_producer") / "samples/create_runs.ndjson").read_text()
    requests = [json.loads(line) for line in sample.splitlines()]
    artifacts = [artifact_of(RunRequest.read(request))[0] for request in requests]
    with tempfile.TemporaryDirectory() as scratch, EmbeddedServer(Path(scratch) / "valkey") as server:
        rows = [
            *accept.rows(server.url, requests, rounds=rounds),
            *store.rows(Path(scratch), [run.to_bytes() for run in artifacts], rounds=rounds),
            *explain.rows(artifacts, rounds=rounds),
            *protection.rows(server.url, Path(scratch), requests, rounds=(rounds + 1) // 2),
        ]
    table = Table("row", "reference", "times as fast", "spread", "to reach")
    for row in rows:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        mark = f"{row.reach:g}" + ("" if row.reached else "  MISSED")
        table.add_row(row.name, row.reference, f"{row.ratio:.2f}", spread, mark)
    Console().print(table)
    return int(not all(row.reached for row in rows))


if __name__ == "__main__":
    sys.exit(main())
