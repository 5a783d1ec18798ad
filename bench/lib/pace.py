"""A producer that keeps a pace: ``python -m lib.pace ours|empty RATE SECONDS``.

It prints when each job was due, by id. The clock starts when a job is due, not when its turn comes, so that
a producer held up hides nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from lib.scene import requests_of


def main() -> None:
    """Enqueue at the pace."""
    rate, seconds = float(sys.argv[2]), float(sys.argv[3])
    send = _ours() if sys.argv[1] == "ours" else _empty()
    requests = requests_of(int(rate * seconds) + 1)
    send(requests[0])
    began = time.monotonic() + 0.1
    due: dict[str, float] = {}
    for index, request in enumerate(requests[1:]):
        moment = began + index / rate
        time.sleep(max(0.0, moment - time.monotonic()))
        due[send(request)] = moment
    print(json.dumps(due))


def _ours() -> Callable[[dict[str, Any]], str]:
    from rmos_runs import RunsClient  # noqa: PLC0415 - only one of the two is loaded

    client = RunsClient.connect()
    return lambda request: client.create_run(request).run_id


def _empty() -> Callable[[dict[str, Any]], str]:
    from peers.empty import timed  # noqa: PLC0415 - as above

    return lambda _: str(timed.apply_async().id)


if __name__ == "__main__":
    main()
