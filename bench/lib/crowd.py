"""Producers at once: ``python -m lib.crowd CLIENTS START SECONDS`` prints the seconds that each call took."""

from __future__ import annotations

import json
import sys
import threading
import time

from lib.scene import requests_of
from rmos_runs import RunsClient


def main() -> None:
    """Call from so many threads, each with a client of its own."""
    clients, start, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    requests = requests_of(100)
    times: list[float] = []

    def call() -> None:
        with RunsClient.connect() as client:
            client.create_run(requests[0])
            time.sleep(max(0.0, start - time.monotonic()))
            index = 0
            while (began := time.monotonic()) < start + seconds:
                client.create_run(requests[index % len(requests)])
                times.append(time.monotonic() - began)
                index += 1

    threads = [threading.Thread(target=call) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
