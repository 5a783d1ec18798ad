"""The producer's process: ``python -m lib.fill MODULE AMOUNT`` enqueues and prints the cost as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import time

from lib.scene import requests_of


def main() -> None:
    """Enqueue."""
    peer = importlib.import_module(f"peers.{sys.argv[1]}")
    requests = requests_of(int(sys.argv[2]))
    # Once before the clock runs: connections, and what is imported when first used.
    peer.fill(requests[:1])
    began, cpu = time.perf_counter(), time.process_time()
    peer.fill(requests[1:])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "jobs": len(requests) - 1}))


if __name__ == "__main__":
    main()
