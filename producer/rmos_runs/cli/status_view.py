"""A status as lines for people: pure.

Nothing is cut without a mark: a column that has no room is left out and named, a long line goes on in the
next one, and rows that have no room are counted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rich.cells import cell_len

from rmos_runs.cli.table import Layout, Row, shown
from rmos_runs.operations.sealing_status import SealingStatus
from rmos_runs.operations.status import SystemStatus, Unreachable
from rmos_shared.jobs.figures.model import BreakerFigures, LedgerFigures, TaskFlow, TaskJobs, WorkerFigures
from rmos_shared.jobs.model import LedgerStats
from rmos_shared.jobs.pauses import Pause
from rmos_shared.models.base import format_utc

#: Colours alone, so that NO_COLOR leaves nothing of them.
HEADING, WARNING, BAD = "cyan", "yellow", "red"
#: For a pipe, which has no width.
UNLIMITED = 100_000
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_FIVE_MINUTES = 300
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and its colour."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Lines that belong together. The first ``head`` lines stay, the rest may be counted instead of shown."""

    lines: tuple[Line, ...]
    head: int = 1


def sections(status: SystemStatus, width: int, *, brief: bool = False) -> list[Section]:
    """Return what there is to say of a status, for a terminal of this width, most important first.

    ``brief`` is for a small screen: no empty queues, no idle workers, one table for all about a task.
    """
    made = [_unreachable(status.unreachable)]
    if status.ledger is not None and status.figures is not None:
        made.append(_jobs(status.ledger))
        made.append(_pauses(status.pauses))
        made += _ledger(status.figures, status.ledger, width, brief=brief)
    made.append(_storage_in_brief(status) if brief else _storage(status))
    return [_folded(section, width) for section in made if section.lines]


def fitted(listed: Sequence[Section], height: int) -> list[Line]:
    """Return the lines of the sections in at most ``height`` lines, saying what is left out."""
    sizes = [len(section.lines) for section in listed]
    kept = list(listed)
    while sum(sizes) > height:
        spare = [size - section.head - 1 for size, section in zip(sizes, kept, strict=True)]
        longest = max(range(len(kept)), key=lambda place: spare[place])
        if spare[longest] > 0:
            sizes[longest] -= 1
        elif len(kept) > 1:
            kept.pop()
            sizes.pop()
            height -= 1 if len(kept) == len(listed) - 1 else 0  # the line that says so
        else:
            sizes[0] = height
    lines = [line for size, section in zip(sizes, kept, strict=True) for line in _first(section, size)]
    left_out = len(listed) - len(kept)
    return [*lines, Line(f"… {left_out} sections more; enlarge the terminal", WARNING)] if left_out else lines


def _first(section: Section, size: int) -> Iterable[Line]:
    if size >= len(section.lines):
        return section.lines
    if size < 1:
        return ()
    left_out = len(section.lines) - size + 1
    return (*section.lines[: size - 1], Line(f"… {left_out} lines more; see rmos status", WARNING))


def _folded(section: Section, width: int) -> Section:
    """Return the section with lines that are too long broken into several, each whole in itself."""
    lines: list[Line] = []
    head = section.head
    for number, line in enumerate(section.lines):
        parts = [line.text]
        if cell_len(line.text) > width:
            parts = textwrap.wrap(line.text, width, subsequent_indent="    ", break_on_hyphens=False)
        head += len(parts) - 1 if number < section.head else 0
        lines += (replace(line, text=part.rstrip()) for part in parts)
    return Section(tuple(lines), head)


def _unreachable(parts: Sequence[Unreachable]) -> Section:
    lines = [Line(f"{one.part}: not reachable: {shown(one.message)}", BAD) for one in parts]
    return Section(tuple(lines), head=len(lines))


def _jobs(stats: LedgerStats) -> Section:
    figures = (
        f"jobs: accepted {stats.accepted} = done {stats.done} + dead {stats.dead} + discarded "
        f"{stats.discarded} + pending {stats.pending}"
    )
    if stats.invariant:
        return Section((Line(figures),))
    return Section((Line(figures, BAD), Line("the invariant is broken; see rmos doctor", BAD)), head=2)


def _pauses(pauses: Sequence[Pause]) -> Section:
    lines = [Line(f"paused: {shown(pause.sentence)}", WARNING) for pause in pauses]
    return Section(tuple(lines), head=min(len(lines), 1))


def _ledger(figures: LedgerFigures, stats: LedgerStats, width: int, *, brief: bool) -> Iterator[Section]:
    marks = list(_marks(figures, stats))
    yield _table(
        [
            {"queue": one.queue, "ready": one.ready, "oldest": _span_or_none(one.oldest_ready_seconds)}
            for one in figures.queues
            if one.ready or not brief
        ],
        width,
    )
    of_tasks = [mark for state, mark in marks if state not in {"waiting", "dead"}]
    if brief:
        yield _tasks_in_brief(figures, width, of_tasks)
    else:
        yield _table([_states(one) for one in figures.tasks], width, of_tasks)
        yield from _flow(figures, width)
    yield _table(
        [
            {
                "waiting for": one.reason,
                "jobs": one.jobs,
                "first due": _until(one.first_due_utc.timestamp() - figures.at_utc.timestamp()),
                "last due": _until(one.last_due_utc.timestamp() - figures.at_utc.timestamp()),
            }
            for one in figures.waiting
        ],
        width,
        [mark for state, mark in marks if state == "waiting"],
    )
    yield _table(
        [
            {
                "dead letters": one.reason,
                "letters": one.letters,
                "first seen": _time(one.first_seen_utc),
                "last seen": _time(one.last_seen_utc),
            }
            for one in figures.dead_letters
        ],
        width,
        [mark for state, mark in marks if state == "dead"],
    )
    yield _breaker(figures)
    yield _workers(figures, brief=brief)


def _states(one: TaskJobs) -> Row:
    return {
        "task": one.task,
        "ready": one.accepted,
        "running": one.running,
        "waiting": one.waiting,
        "dead": one.dead,
        "discarded": one.discarded,
    }


def _tasks_in_brief(figures: LedgerFigures, width: int, marks: list[str]) -> Section:
    states = {one.task: one for one in figures.tasks}
    flows = {one.task: one for one in figures.flow}
    rows = []
    for task in sorted({*states, *flows}):
        row = _states(states.get(task, TaskJobs(task=task)))
        del row["discarded"]
        flow = flows.get(task)
        row["done/s"] = "" if flow is None else _short(flow.done_per_second_1m)
        row["p50 s"] = "" if flow is None else _short(flow.accepted_to_done_seconds_p50)
        row["p99 s"] = "" if flow is None else _short(flow.accepted_to_done_seconds_p99)
        rows.append(row)
    if figures.flow_seconds < _MINUTE:
        marks = [*marks, f"done/s: of the last {span(figures.flow_seconds)}"]
    return _table(rows, width, marks)


def _table(rows: Sequence[Row], width: int, marks: Iterable[str] = ()) -> Section:
    if not rows:
        return Section(())
    layout = Layout.fitting(rows, width)
    head = [Line(next(layout.header()), HEADING)]
    if layout.hidden:
        head.append(
            Line(f"columns hidden: {', '.join(layout.hidden)}; widen the terminal, or add --json", WARNING)
        )
    head += (Line(mark, WARNING) for mark in marks)
    return Section((*head, *(Line(text) for row in rows for text in layout.lines(row))), head=len(head))


def _marks(figures: LedgerFigures, stats: LedgerStats) -> Iterator[tuple[str, str]]:
    """Yield, for each state that was not looked at to its end, what to say."""
    totals = stats.dump() | {"accepted": stats.ready}
    for state in figures.capped:
        which = "latest" if state in {"dead", "discarded"} else "first"
        each = " of each line" if state == "accepted" else ""
        yield (
            state,
            f"{state}: of the {which} {figures.most_examined}{each} alone; there are {totals[state]}",
        )


def _flow(figures: LedgerFigures, width: int) -> Iterator[Section]:
    back = figures.flow_seconds
    over = f"1 min / {span(back)}" if back > _MINUTE else f"last {span(back)}"

    def rate(recent: float, longer: float) -> str:
        return f"{_short(recent)} / {_short(longer)}" if back > _MINUTE else _short(recent)

    note = "events of five minutes are not kept or not looked at; rates and times are of those that are"
    marks = [note] if back < _FIVE_MINUTES else []
    yield _table(
        [
            {
                f"a second ({over})": one.task,
                "accepted": rate(one.accepted_per_second_1m, one.accepted_per_second_5m),
                "done": rate(one.done_per_second_1m, one.done_per_second_5m),
                "dead": rate(one.dead_per_second_1m, one.dead_per_second_5m),
            }
            for one in figures.flow
        ],
        width,
        marks,
    )
    yield _table([_seconds(one) for one in figures.flow if one.measured], width)


def _seconds(flow: TaskFlow) -> Row:
    def pair(half: float | None, nearly_all: float | None) -> str:
        return "" if half is None else f"{_short(half)} / {_short(nearly_all)}"

    return {
        "seconds (p50 / p99)": flow.task,
        "accepted to done": pair(flow.accepted_to_done_seconds_p50, flow.accepted_to_done_seconds_p99),
        "started to done": pair(flow.started_to_done_seconds_p50, flow.started_to_done_seconds_p99),
        "measured": flow.measured,
    }


def _breaker(figures: LedgerFigures) -> Section:
    breaker = figures.breaker
    if breaker.state == "closed":
        return Section((Line("advisory store: breaker closed, calls are made"),))
    return Section((Line(f"advisory store: breaker {_breaker_words(breaker, figures)}", BAD),))


def _breaker_words(breaker: BreakerFigures, figures: LedgerFigures) -> str:
    now = figures.at_utc.timestamp()
    since = "" if breaker.since_utc is None else f" for {span(now - breaker.since_utc.timestamp())}"
    why = "" if breaker.why is None else f" ({shown(breaker.why)})"
    if breaker.until_utc is None:
        return f"half open{since}{why}; the next call tries whether it is back"
    return f"open{since}{why}, next call in {span(breaker.until_utc.timestamp() - now)}"


def _workers(figures: LedgerFigures, *, brief: bool) -> Section:
    workers = figures.workers
    if not workers:
        return Section((Line("workers: none", BAD),))
    silent = sum(worker.silent for worker in workers)
    more = " of more" if figures.more_workers else ""
    idle = sum(not worker.running for worker in workers)
    lines = [Line(f"workers: {len(workers)}{more}, {silent} silent, {idle} idle", BAD if silent else HEADING)]
    widest = max(cell_len(shown(worker.worker)) for worker in workers)
    # Those that are in trouble, or at work, stand first.
    for worker in sorted(workers, key=lambda one: (not one.silent, -one.running, one.worker)):
        if worker.silent or worker.running or not brief:
            lines += _worker(worker, widest, figures)
    return Section(tuple(lines))


def _worker(worker: WorkerFigures, widest: int, figures: LedgerFigures) -> Iterator[Line]:
    name = shown(worker.worker)
    beat = "none yet" if worker.heartbeat_seconds is None else f"{span(worker.heartbeat_seconds)} ago"
    doing = "idle" if not worker.running else f"{worker.running} job{'s' * (worker.running > 1)}"
    state = "silent, " if worker.silent else ""
    padding = " " * (widest - cell_len(name))
    yield Line(f"{name}{padding}  heartbeat {beat}, {state}{doing}", BAD if worker.silent else "")
    for job in worker.jobs:
        since = span(figures.at_utc.timestamp() - job.since_utc.timestamp())
        yield Line(f"  {shown(job.job_id)}  {shown(job.task)}  for {since}")
    if worker.running > len(worker.jobs):
        yield Line(f"  … {worker.running - len(worker.jobs)} jobs more; see rmos jobs list --state running")


def _storage(status: SystemStatus) -> Section:
    lines = []
    if status.storage is not None:
        free, total = size(status.storage.free_bytes), size(status.storage.total_bytes)
        lines.append(Line(f"store: {status.storage.store_id}, {free} of {total} free"))
    if status.index is not None:
        until = _time(status.index.complete_until_utc)
        lines.append(Line(f"index: complete up to {until}, {span(status.index.behind_seconds)} ago"))
    elif all(one.part != "index" for one in status.unreachable):
        lines.append(Line("index: none; lists are answered by the store, slower"))
    if status.reviews is not None:
        more = " or more" if status.reviews.more else ""
        lines.append(Line(f"reviews: {status.reviews.runs}{more} runs wait for a person"))
    if status.nightly is not None:
        last, following = status.nightly.last_due_utc, status.nightly.next_due_utc
        lines.append(Line(f"nightly batch: last due {_time(last)}, next due {_time(following)}"))
    if status.audit is not None:
        lines.append(_audit(status.audit))
    return Section(tuple(lines), head=len(lines))


def _audit(audit: SealingStatus) -> Line:
    if audit.sealed_seconds is None:
        said = "audit log: nothing is sealed yet"
    else:
        signed = "unsigned" if audit.signed_by is None else f"signed by {audit.signed_by}"
        said = f"audit log: {audit.entries} entries, sealed {span(audit.sealed_seconds)} ago, {signed}"
    waits = audit.oldest_unsealed_seconds
    oldest = "" if waits is None else f", the oldest for {span(waits)}"
    said = f"{said}; {audit.unsealed} not sealed{oldest}"
    if audit.dead_job is not None:
        said = f"{said}; the seal job is dead: rmos dlq show {audit.dead_job}"
    return Line(said, BAD if audit.has_stopped else "")


def _storage_in_brief(status: SystemStatus) -> Section:
    said = []
    if status.storage is not None:
        said.append(f"{size(status.storage.free_bytes)} of {size(status.storage.total_bytes)} free")
    if status.index is not None:
        said.append(f"index {span(status.index.behind_seconds)} behind")
    if status.reviews is not None:
        said.append(
            f"{status.reviews.runs}{' or more' if status.reviews.more else ''} runs wait for a person"
        )
    lines = [Line(f"store: {'; '.join(said)}")] if said else []
    if status.audit is not None and status.audit.has_stopped:
        lines.append(_audit(status.audit))
    return Section(tuple(lines), head=len(lines))


def span(seconds: float) -> str:
    """Return a length of time in one unit: ``0.3 s``, ``12 s``, ``5 min``, ``3 h``, ``9 d``."""
    whole = max(seconds, 0.0)
    if whole < 10:  # noqa: PLR2004 - from here on a tenth says nothing
        return f"{whole:.1f} s"
    for unit, name, following in ((1, "s", _MINUTE), (_MINUTE, "min", _HOUR), (_HOUR, "h", _DAY)):
        if whole < 2 * following:
            return f"{whole / unit:.0f} {name}"
    return f"{whole / _DAY:.0f} d"


def size(number: float) -> str:
    """Return an amount of bytes in the largest unit of which there is one: ``812 MiB``, ``1.4 TiB``."""
    for unit in _UNITS:
        if number < _KIB or unit == _UNITS[-1]:
            return f"{number:.3g} {unit}" if number < 100 else f"{number:.0f} {unit}"  # noqa: PLR2004 - no 1e+02
        number /= _KIB
    raise AssertionError


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else format_utc(moment.replace(microsecond=0))


def _short(number: float | None) -> str:
    """Return a number in few characters: ``0.012``, ``3.4``, ``120``, ``12346``; nothing for None."""
    if number is None:
        return ""
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"  # noqa: PLR2004 - no 1e+02


def _span_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else span(seconds)


def _until(seconds: float) -> str:
    return "now" if seconds <= 0 else f"in {span(seconds)}"
