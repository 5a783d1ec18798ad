"""For the tests of services that enqueue: a client that keeps its requests, and a real pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmos_runs.jobs import AnyRequest, Explain, prepare_run
from rmos_runs.receipt import Receipt
from rmos_shared.tasks.table import CREATE

_MOST_BYTES = 8_388_608


class RecordingClient:
    """Stands in for ``RunsClient.create_run`` without a broker: checks each request, and keeps it."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.requests: list[AnyRequest] = []

    def create_run(self, request: AnyRequest, *, explain: Explain = False) -> Receipt:
        """Keep the request and return the receipt that a broker would have made true.

        Raises:
            InvalidRequest: as ``RunsClient.create_run``; the request is not kept.
        """
        prepared = prepare_run(request, CREATE, explain=explain, most_bytes=_MOST_BYTES)
        self.requests.append(request)
        return prepared.receipt


@contextmanager
def running_pipeline(home: Path) -> Iterator[str]:
    """Run the server, the advisory store and the workers in ``home``, and yield the broker's address.

    Needs ``rmos-runs[all]``. Processes end with the block; the files stay.

    Raises:
        RmosError: something did not start; the logs are in ``home``.
    """
    from rmos_runs.local.home import Home  # noqa: PLC0415 - the extras are not every caller's
    from rmos_runs.local.processes import Pipeline  # noqa: PLC0415 - as above

    with Pipeline(Home(home)) as pipeline:
        yield pipeline.start().broker_url
