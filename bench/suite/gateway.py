"""100 clients that post and list for a while, against an empty FastAPI endpoint in the same run.

``PYTHONPATH=bench python bench/suite/gateway.py`` starts its own server, worker, indexer and gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx

from lib.scene import scene
from rmos_runs.local.ports import free_port
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.tasks.table import QUEUES

RUNS = "/api/rmos/runs"
REQUEST = {
    "mode": "router",
    "tool_id": "router:endmill_4p0mm",
    "status": "OK",
    "feasibility": {"risk_level": "GREEN", "rules_triggered": []},
    "decision": {"risk_level": "GREEN", "score": 94.3},
}


def process(stack: ExitStack, *program: str, **settings: object) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RMOS_")}
    environment |= {f"RMOS_{name.upper()}": str(value) for name, value in settings.items()}
    started = subprocess.Popen(
        [sys.executable, *program], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(started.wait)
    stack.callback(started.kill)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).is_success:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


async def load(url: str, path: str, *, clients: int, seconds: float, posts: bool) -> dict[str, Any]:
    latencies: list[float] = []
    errors: list[int] = []
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            turn = number
            while time.monotonic() < end:
                turn += 1
                begun = time.perf_counter()
                try:
                    if posts and turn % 2:
                        answer = await http.post(path, json=REQUEST)
                    else:
                        answer = await http.get(path, params={"limit": 20} if posts else None)
                    status = answer.status_code
                except httpx.HTTPError:
                    status = 0
                latencies.append((time.perf_counter() - begun) * 1000)
                if status not in {200, 202}:
                    errors.append(status)

    await asyncio.gather(*(client(number) for number in range(clients)))
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests": len(latencies),
        "per_second": round(len(latencies) / seconds, 1),
        "errors": len(errors),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
    }


EMPTY = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
async def empty() -> dict[str, str]:
    return {}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--without-index", action="store_true", help="lists are answered by the store")
    options = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = stack.enter_context(scene(root))
        (root / "empty.py").write_text(EMPTY)
        empty_port, port = free_port(), free_port()
        process(
            stack,
            *("-m", "uvicorn", "--app-dir", str(root), "--port", str(empty_port), "--no-access-log"),
            "empty:app",
        )
        basics: dict[str, object] = {"broker_url": place.url, "runs_dir": place.runs_dir}
        if not options.without_index:
            basics["index_url"] = f"sqlite:///{root / 'index.db'}"
            process(stack, *("-m", "rmos_shared.index"), **basics)
        process(
            stack,
            *("-m", "celery", "-A", "rmos_worker.celery_app.main", "worker", "-P", "threads", "-c", "2"),
            *("-Q", ",".join(QUEUES), "--without-gossip", "--without-mingle"),
            **basics,
        )
        process(
            stack,
            *("-m", "rmos_runs.gateway"),
            **basics,
            gateway_port=port,
            rate_requests=100_000,
            burst_requests=100_000,
        )
        empty, ours = f"http://127.0.0.1:{empty_port}", f"http://127.0.0.1:{port}"
        wait_for(f"{empty}/")
        wait_for(f"{ours}/healthz")
        told: dict[str, Any] = {}
        for name, url, path in (("empty", empty, "/"), ("gateway", ours, RUNS)):
            told[name] = asyncio.run(
                load(url, path, clients=options.clients, seconds=options.seconds, posts=name == "gateway")
            )
        told["p99_ratio"] = round(told["gateway"]["p99_ms"] / told["empty"]["p99_ms"], 2)
        told["invariant"] = JobLedger.connect(BrokerSettings.load(broker_url=place.url)).stats().invariant
        sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
