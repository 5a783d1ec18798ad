"""The page: what was found, how, and what people have to say about it (``notes.md``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import plot
from ratio import Row
from result import Curve, Section, Table

_METHOD = """\
Each row runs its two sides in turn, A B A B, on one machine, and tells the median of the ratios with their
spread: lowest to highest, or the middle half of them where there are five or more. Absolute figures are for
orientation: on a shared machine they prove nothing. The spread is that within one run; how far two runs are
apart, the ratio of the run before shows. A row misses its mark when not even the better end of
its spread meets it; then the command exits with 1.

- Every measurement has a server of its own, a real valkey-server on loopback that syncs its append-only
  file at every write, for ours and for the references alike, and an empty run store on the same disk.
- Throughput of workers is that of a queue filled beforehand, counted by stored files (empty tasks: by the
  length of their queue) after a warm-up and before the end. The producer's work is outside the time, but
  its CPU seconds count.
- Each peer does the same function (`bench/work.py`: read the request, make the artifact, store it durably)
  with the same number of processes, as its documentation recommends, without results.
- Plain and empty Celery tasks have our Celery settings, and acknowledge their messages as Celery does by
  default.
- A CPU second is what the kernel counted for a process and all its children; starting them is left out.
- Nothing that guards a job was switched off: no sync, no hash, no check.
- What was stored stays until the last measurement is over: some file systems make each new file pay for files
  that were deleted minutes before. For the same reason, wait a few minutes after a `make test`.
"""


def write(
    sections: Mapping[str, Section], facts: Mapping[str, str], notes: Path, page: Path, *, whole: bool
) -> None:
    """Write the page, and its pictures in a folder of the page's name beside it.

    Raises:
        ValueError: a note is about no section and no row of this page, though it is the ``whole`` one.
    """
    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    rows = [row for section in sections.values() for row in section.rows]
    plot.draw_rows(rows, pictures / "rows.svg")
    for section in sections.values():
        for curve in _drawn(section):
            plot.draw(curve, pictures / f"{curve.name}.svg")
        for flames in section.flames:
            plot.draw_flames(flames, pictures / f"{flames.name}.svg")
    said = _notes(notes)
    if whole and (strange := said.keys() - sections.keys() - {row.key for row in rows} - {"summary"}):
        raise ValueError(f"{notes.name} speaks of nothing on the page: {', '.join(sorted(strange))}")
    page.write_text("\n".join(_lines(sections, facts, said, pictures.name)).rstrip() + "\n")


def _lines(
    sections: Mapping[str, Section], facts: Mapping[str, str], said: Mapping[str, str], pictures: str
) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield "Written by `make bench`; what people say in it stands in `bench/notes.md`."
    yield ""
    if "summary" in said:
        yield from (said["summary"], "")
    yield from _table(("", ""), list(facts.items()))
    yield from ("## Method", "", _METHOD)
    yield from ("## All rows", "", f"![Each row as a share of its mark]({pictures}/rows.svg)", "")
    rows = [row for section in sections.values() for row in section.rows]
    yield from _rows(rows)
    for name, section in sections.items():
        yield from (f"## {name.capitalize()}", "", f"Measured {section.measured}, by `bench/{name}.py`.", "")
        for remark in section.remarks:
            yield from (remark, "")
        if name in said:
            yield from (said[name], "")
        for row in section.rows:
            if row.key in said and row.key != name:
                yield from (f"**{row.name}, against {row.reference}.** {said[row.key]}", "")
        for table in section.tables:
            yield from _titled(table)
        for picture in (*_drawn(section), *section.flames):
            yield from (f"![{picture.title}]({pictures}/{picture.name}.svg)", "")


def _drawn(section: Section) -> list[Curve]:
    """Return the curves that are any: a quick run has some of a single point."""
    return [curve for curve in section.curves if max(map(len, curve.lines.values())) > 1]


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


def _notes(file: Path) -> dict[str, str]:
    """Return the text below each ``## key`` heading; what stands before the first is for its writers."""
    parts = re.split(r"^## (\S+)$", file.read_text(), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {key: text.strip() for key, text in pairs if text.strip()}
