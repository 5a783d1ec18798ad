"""The page: what was found, how, and what people have to say about it (``notes.md``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lib import notes
from lib.ratio import Row
from lib.result import Section, Table

_METHOD = """\
Each row runs its two sides in turn, A B A B, on one machine, and gives the median of the ratios with their
spread: lowest to highest, or the middle half of them where there are five or more. Absolute figures are for
orientation: on a shared machine they prove nothing. The spread is that within one run; how far two runs are
apart, the ratio of the run before shows. A row misses its mark when not even the better end of
its spread meets it; then the command exits with 1.

A mark with an aim beside it is a guard: what is reached, less the noise between runs, so that it is not lost
again. The aim is the design's, and the row's section says what stands in its way.

- Every measurement has a server of its own, a real valkey-server on loopback that syncs its append-only
  file at every write, for ours and for the references alike, and an empty run store on the same disk.
- Throughput of workers is that of a queue filled beforehand, counted by stored files (empty tasks: by the
  length of their queue) after a warm-up and before the end. The producer's work is outside the time, but
  its CPU seconds count.
- Each peer does the same function (`bench/peers/work.py`: read the request, make the artifact, store it
  durably) with the same number of processes, as its documentation recommends, without results.
- Plain and empty Celery tasks have our Celery settings, and acknowledge their messages as Celery does by
  default.
- A CPU second is what the kernel counted for a process and all its children; starting them is left out.
- Nothing that guards a job was switched off: no sync, no hash, no check.
- What was stored stays until the last measurement is over: some file systems make each new file pay for files
  that were deleted minutes before. For the same reason, wait a few minutes after a `make test`.
"""


def text(
    sections: Mapping[str, Section],
    facts: Mapping[str, str],
    comments: Mapping[str, str],
    pictures: str,
    *,
    whole: bool,
) -> str:
    """Return the page, with its pictures in the folder ``pictures`` beside it.

    Raises:
        NotesUnreadable: the page is a ``whole`` one, and ``comments`` has a note on nothing there, or lacks
            the summary or the note on a row that falls short of what was meant.
    """
    rows = [row for section in sections.values() for row in section.rows]
    if whole:
        known = {notes.SUMMARY, *sections, *(row.key for row in rows)}
        short = {row.key for row in rows if row.aim is not None or not row.reached}
        notes.check(comments, known=known, needed={notes.SUMMARY, *short})
    return "\n".join(_lines(sections, facts, comments, pictures)).rstrip() + "\n"


def _lines(
    sections: Mapping[str, Section], facts: Mapping[str, str], comments: Mapping[str, str], pictures: str
) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield "Written by `make bench`; what people say in it stands in `bench/notes.md`."
    yield ""
    if notes.SUMMARY in comments:
        yield from (comments[notes.SUMMARY], "")
    yield from ("The machine of the newest measurement; each section names its own:", "")
    yield from _table(("", ""), list(facts.items()))
    yield from ("## Method", "", _METHOD)
    yield from ("## All rows", "", f"![Each row as a share of its mark]({pictures}/rows.svg)", "")
    rows = [row for section in sections.values() for row in section.rows]
    yield from _rows(rows)
    for name, section in sections.items():
        yield from (
            f"## {name.capitalize()}",
            "",
            f"Measured {section.measured}, by `bench/suite/{name}.py`.",
            "",
        )
        for remark in section.remarks:
            yield from (remark, "")
        if name in comments:
            yield from (comments[name], "")
        for row in section.rows:
            if row.key in comments and row.key != name:
                yield from (f"**{row.name}, against {row.reference}.** {comments[row.key]}", "")
        for table in section.tables:
            yield from _titled(table)
        for title, file in [(each.title, each.name) for each in section.drawn] + [
            (each.title, each.name) for each in section.flames
        ]:
            yield from (f"![{title}]({pictures}/{file}.svg)", "")


def _rows(rows: Sequence[Row]) -> Iterator[str]:
    head = ("key", "row", "reference", "ratio", "spread", "run before", "to reach", "", "ours", "reference's")
    yield from _table(
        head,
        [
            (
                f"`{row.key}`",
                row.name,
                row.reference,
                f"**{row.ratio:.2f}**",
                f"{row.low:.2f} to {row.high:.2f}",
                "" if row.before is None else f"{row.before:.2f}",
                row.mark,
                "met" if row.reached else "**missed**",
                row.ours,
                row.theirs,
            )
            for row in rows
        ],
    )


def _titled(table: Table) -> Iterator[str]:
    yield from (f"{table.title}:", "")
    yield from _table(table.head, table.lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""
