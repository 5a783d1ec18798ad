"""Where the time of a producer and of a worker goes, sampled while they work or wait for the disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lib.contender import bulk
from lib.drain import fill
from lib.group import Group, program
from lib.result import Flames, Section, Table
from lib.scene import Scene, scene, until
from lib.size import Size
from lib.spy import stacks, watched

_OURS = ("rmos_shared/", "rmos_runs/", "rmos_worker/")
#: Where work begins: in a producer, in a child of a worker, in its main process.
_WORK = ("RunsClient.create_runs ", "Worker.workloop ", "asynloop ")
_WARM = 100
#: Stacks seen less often than this are left out of what is kept.
_LEAST_SHARE = 0.008
_FUNCTIONS = 14


def section(scratch: Path, size: Size) -> Section:
    """Watch a producer that streams, and a worker with two processes that works off what was streamed."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    remarks = []
    for name, watch in (("producer", _producer), ("worker", _worker)):
        with scene(scratch) as place:
            try:
                found[name] = watch(place, size)
            except ValueError as error:
                remarks.append(f"No profile of the {name}: {error}.")
    return Section(
        tables=[_functions(name, of) for name, of in found.items()],
        flames=[
            Flames(
                f"profile-{name}",
                f"Where a {name}'s time goes, create-run in bulk",
                _kept(of),
            )
            for name, of in found.items()
        ],
        remarks=remarks,
    )


def _producer(place: Scene, size: Size) -> Counter[tuple[str, ...]]:
    samples = place.directory / "producer.raw"
    producer = program("fill", bulk().module, size.bulk_jobs)
    with Group(watched(producer, samples), place.environment, place.log("producer")) as group:
        until(lambda: group.ended, "a queue filled")
    return _working(samples)


def _worker(place: Scene, size: Size) -> Counter[tuple[str, ...]]:
    samples = place.directory / "worker.raw"
    contender = bulk()
    jobs = fill(contender, place, size.bulk_jobs).jobs
    with Group(watched(contender.worker, samples), place.environment, place.log("worker")) as group:
        until(lambda: group.ended or place.stored() >= _WARM, "the first runs")
        until(lambda: group.ended or place.stored() >= jobs, "all runs")
        group.interrupt()
        until(lambda: group.ended, "the samples")
    return _working(samples)


def _working(samples: Path) -> Counter[tuple[str, ...]]:
    """Return what was seen below the frames in which the work is done; the start is no part of it."""
    found: Counter[tuple[str, ...]] = Counter()
    for stack, count in stacks(samples).items():
        begins = next((index for index, frame in enumerate(stack) if frame.startswith(_WORK)), None)
        if begins is not None:
            found[stack[begins:]] += count
    return found


def _functions(name: str, found: Counter[tuple[str, ...]]) -> Table:
    """Return which functions of ours the time was spent in, what they call included."""
    within: Counter[str] = Counter()
    for stack, count in found.items():
        for frame in {frame for frame in stack if frame.partition("(")[2].startswith(_OURS)}:
            within[frame] += count
    return Table(
        f"Functions of ours that took most of the {name}'s time, with what they call",
        ("function", "share"),
        [[f"`{frame}`", f"{count / found.total():.0%}"] for frame, count in within.most_common(_FUNCTIONS)],
    )


def _kept(found: Counter[tuple[str, ...]]) -> dict[str, int]:
    """Return the stacks, each cut where fewer samples than count went on."""
    passing: Counter[tuple[str, ...]] = Counter()
    for stack, count in found.items():
        for depth in range(1, len(stack) + 1):
            passing[stack[:depth]] += count
    least = _LEAST_SHARE * found.total()
    kept: Counter[str] = Counter()
    for stack, count in found.items():
        depth = sum(passing[stack[: end + 1]] >= least for end in range(len(stack)))
        kept[";".join(stack[:depth])] += count
    return dict(sorted(kept.items()))
