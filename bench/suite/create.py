"""Creating runs: throughput and processor time, single and in bulk, against framework, disk and peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from lib import disk
from lib.contender import EMPTY, PEERS, PLAIN, PROCESSES, Contender, bulk, single
from lib.drain import Reading, drain
from lib.ratio import Mark, figure
from lib.result import Section, Table
from lib.size import Size

_SINGLE = "create-run, single jobs, durable"
_BULK = "create-run in bulk, durable"
_CPU = "CPU seconds per 1,000 created runs"


def section(scratch: Path, size: Size) -> Section:
    """Drain every contender in turn, the disk among them, and compare."""
    ours, ours_bulk = single(), bulk()
    readings: dict[str, list[Reading]] = {}
    disks: dict[int, list[float]] = {1: [], disk.GROUP: []}
    remarks: list[str] = []
    serial = count()
    taking_part: list[Contender] = [ours, EMPTY, PLAIN, *PEERS, ours_bulk]
    for _ in range(size.drains):
        for contender in list(taking_part):
            jobs = size.bulk_jobs if contender is ours_bulk else size.single_jobs
            try:
                reading = drain(contender, scratch, jobs=jobs, seconds=size.drain_seconds)
            except (TimeoutError, RuntimeError) as error:
                if contender not in PEERS:
                    raise
                # A peer that does not run is told of, and the others still count.
                remarks.append(f"{contender.name} took no part: {error}")
                taking_part.remove(contender)
                readings.pop(contender.name, None)
                continue
            readings.setdefault(contender.name, []).append(reading)
        for group, rates in disks.items():
            # Left there, for the reason that scene.py gives.
            directory = scratch / f"disk{next(serial)}"
            rates.append(disk.rate(directory, group=group, processes=PROCESSES, seconds=size.drain_seconds))

    mine, batch = readings[ours.name], readings[ours_bulk.name]
    peers = {peer.name: readings[peer.name] for peer in PEERS if peer.name in readings}
    fastest = max(peers, key=lambda name: _median(peers[name], _rate))
    thriftiest = min(peers, key=lambda name: _median(peers[name], _cpu))
    frugal_all = min(peers, key=lambda name: _median(peers[name], _all_cpu))

    def speed(name: str) -> list[float]:
        return [_rate(reading) for reading in readings[name]]

    def cpus(of: Sequence[Reading], figure_of: Callable[[Reading], float]) -> list[float]:
        return [figure_of(reading) for reading in of]

    best, thrifty = f"the best peer, {fastest}", f"the best peer, {thriftiest}"
    rows = [
        Mark("single-empty", _SINGLE, "an empty Celery task on the same pool", 0.85, "runs/s").row(
            speed(ours.name), speed(EMPTY.name)
        ),
        Mark("single-peer", _SINGLE, f"{best}, same work", 1.0, "runs/s").row(
            speed(ours.name), speed(fastest)
        ),
        Mark("single-plain", _SINGLE, "the same body as a plain Celery task", 0.8, "runs/s").row(
            speed(ours.name), speed(PLAIN.name)
        ),
        Mark("bulk-disk", _BULK, "the bare grouped disk loop, as many processes", 0.6, "runs/s").row(
            speed(ours_bulk.name), disks[disk.GROUP]
        ),
        Mark("bulk-peer", _BULK, f"{best}, single jobs", 2.7, "runs/s", aim=8).row(
            speed(ours_bulk.name), speed(fastest)
        ),
        Mark("cpu-single", f"{_CPU}, single", thrifty, 1.0, "s", at_most=True).row(
            cpus(mine, _cpu), cpus(peers[thriftiest], _cpu)
        ),
        Mark("cpu-bulk", f"{_CPU}, bulk", thrifty, 0.33, "s", at_most=True, aim=0.2).row(
            cpus(batch, _cpu), cpus(peers[thriftiest], _cpu)
        ),
        Mark(
            "cpu-single-all",
            f"{_CPU}, single, server included",
            f"the best peer, {frugal_all}",
            1.0,
            "s",
            at_most=True,
        ).row(cpus(mine, _all_cpu), cpus(peers[frugal_all], _all_cpu)),
        Mark(
            "cpu-bulk-all",
            f"{_CPU}, bulk, server included",
            f"the best peer, {frugal_all}",
            0.33,
            "s",
            at_most=True,
            aim=0.2,
        ).row(cpus(batch, _all_cpu), cpus(peers[frugal_all], _all_cpu)),
    ]
    return Section(rows, [_contenders(readings), _disk(disks)], remarks=remarks)


def _rate(reading: Reading) -> float:
    return reading.rate


def _cpu(reading: Reading) -> float:
    return reading.cpu


def _all_cpu(reading: Reading) -> float:
    return reading.cpu_with_server


def _median(readings: Sequence[Reading], figure_of: Callable[[Reading], float]) -> float:
    return statistics.median(figure_of(reading) for reading in readings)


def _contenders(readings: dict[str, list[Reading]]) -> Table:
    columns: Sequence[Callable[[Reading], float]] = (
        _rate,
        lambda reading: reading.producer_cpu,
        lambda reading: reading.worker_cpu,
        lambda reading: reading.server_cpu,
    )
    return Table(
        f"All who took part, {PROCESSES} processes each: medians; CPU in seconds per 1,000 runs",
        ("who", "runs/s", "slowest to fastest", "CPU producer", "CPU workers", "CPU server"),
        [
            [
                name,
                figure(_median(of, _rate)),
                f"{figure(min(map(_rate, of)))} to {figure(max(map(_rate, of)))}",
                *(f"{_median(of, column):.2f}" for column in columns[1:]),
            ]
            for name, of in readings.items()
        ],
    )


def _disk(disks: dict[int, list[float]]) -> Table:
    return Table(
        f"The bare disk loop, {PROCESSES} processes in one directory",
        ("files to a directory fsync", "files/s", "slowest to fastest"),
        [
            [str(group), figure(statistics.median(of)), f"{figure(min(of))} to {figure(max(of))}"]
            for group, of in disks.items()
        ],
    )
