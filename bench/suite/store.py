"""The store as it fills: creating and getting by id among many runs of one day, against among few."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from lib import disk
from lib.ratio import Mark, Row, compare
from lib.result import Curve, Section
from lib.scene import requests_of
from lib.size import Size
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.model import RunArtifact, RunRequest
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.writer import RunWriter
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore
from rmos_worker.handlers.artifact import artifact_of

#: Few, for each makes a small store larger.
_CREATES = 20
_GETS = 500
_LINKS_PER_FILE = 50_000
_AMOUNT = {"create": _CREATES, "get by id": _GETS}


def section(scratch: Path, size: Size) -> Section:
    """Fill one store per size, then compare each with the smallest."""
    directory = scratch / "stores"
    try:
        stores = {runs: _Filled(directory / str(runs), runs) for runs in size.store_runs}
        smallest = stores[min(stores)]
        rows = [_grouped(directory, size)]
        curves: dict[str, list[tuple[float, float]]] = {"create": [], "get by id": []}
        for runs, store in stores.items():
            if store is smallest:
                continue
            for verb, key in (("create", "create"), ("get by id", "get")):
                mark = Mark(
                    f"store-{key}-{runs}",
                    f"store {verb}, {runs:,} runs",
                    f"itself at {smallest.runs:,}",
                    1.1,
                    "ms",
                    at_most=True,
                )
                rows.append(
                    compare(
                        mark,
                        store.verb(verb),
                        smallest.verb(verb),
                        amount=_AMOUNT[verb],
                        rounds=2 * size.rounds,
                    )
                )
        for verb, points in curves.items():
            # All sizes in turn once more, for the picture.
            times: dict[int, list[float]] = {runs: [] for runs in stores}
            for _ in range(size.rounds):
                for runs, store in stores.items():
                    times[runs].append(_milliseconds(store.verb(verb)) / _AMOUNT[verb])
            points += [(runs, statistics.median(taken)) for runs, taken in times.items()]
        picture = Curve(
            "store",
            "Durable create and get by id",
            "runs in the day's directory",
            "milliseconds",
            curves,
            log_x=True,
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    remark = (
        "All runs lie in the directory of one day, the hardest case there is. "
        f"All but {_GETS} true ones are hard links, made outside the time taken; what the creates add stays."
    )
    return Section(rows, curves=[picture], remarks=[remark])


class _Filled:
    """A run log that holds so many runs of today; some of them true, and read in turn."""

    def __init__(self, root: Path, runs: int) -> None:
        self.runs = runs
        init_store(root)
        self._writer, self._reader = RunWriter(LocalStore(root)), RunReader(LocalStore(root))
        self._true = [_fresh(request) for request in requests_of(_GETS)]
        self._writer.put_runs(self._true)
        self._requests = requests_of(_CREATES)
        partition = root / str(self._true[0].date)
        for index in range(runs - _GETS):
            if index % _LINKS_PER_FILE == 0:
                # A file system allows one file some 65,000 names.
                base = partition / f"{new_uuid7()}.json"
                base.write_bytes(self._true[0].to_bytes())
            os.link(base, partition / f"{new_uuid7()}.json")

    def verb(self, name: str) -> Callable[[], None]:
        return self._create if name == "create" else self._get

    def _create(self) -> None:
        for request in self._requests:
            self._writer.put_run(_fresh(request))

    def _get(self) -> None:
        for run in self._true:
            self._reader.get_artifact(run.run_id)


def _fresh(request: dict[str, Any]) -> RunArtifact:
    return artifact_of(RunRequest.read(request))[0]


def _milliseconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _grouped(directory: Path, size: Size) -> Row:
    files = disk.sample()
    init_store(directory / "ours")
    store = LocalStore(directory / "ours")
    serial = count()

    def ours() -> None:
        partition = f"p{next(serial)}"
        store.create_many([(f"{partition}/{new_uuid7()}.json", data) for data in files])

    def bare() -> None:
        partition = directory / f"bare{next(serial)}"
        partition.mkdir()
        folder = os.open(partition, os.O_RDONLY)
        for start in range(0, len(files), disk.GROUP):
            disk.publish(folder, files[start : start + disk.GROUP])
        os.close(folder)

    mark = Mark(
        "store-group",
        f"store create, groups of {disk.GROUP}",
        "the bare grouped disk loop",
        0.6,
        "runs/s",
    )
    return compare(mark, ours, bare, amount=len(files), rounds=size.rounds)
