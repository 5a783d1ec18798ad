"""``make bench``: every section in turn; exits 1 when a row misses its mark beyond its spread.

A full run writes ``docs/performance.md`` and what it needs to write it again. ``--only`` measures some
sections anew and keeps the others. A quick run prints its rows and writes nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lib import machine, notes, page, plot, result
from lib.result import Section
from lib.size import FULL, QUICK, Size
from suite import (
    accept,
    advise,
    audit,
    create,
    explain,
    growth,
    index,
    latency,
    memory,
    profiles,
    sealing,
    start,
    store,
)

_ROOT = Path(__file__).parents[1]
_NOTES = Path(__file__).with_name("notes.md")
SECTIONS: Mapping[str, Callable[[Path, Size], Section]] = {
    "accept": accept.section,
    "create": create.section,
    "advise": advise.section,
    "latency": latency.section,
    "store": store.section,
    "explain": explain.section,
    "memory": memory.section,
    "start": start.section,
    "growth": growth.section,
    "index": index.section,
    "sealing": sealing.section,
    "audit": audit.section,
    "profiles": profiles.section,
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="some two minutes, smaller sizes, no page")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing; write the page from what is kept"
    )
    options = parser.parse_args()
    try:
        # Before anything is measured, and written down only if all of it has its place.
        comments = notes.read(_NOTES.read_text())
    except notes.NotesUnreadable as error:
        sys.exit(f"{_NOTES.name}: {error}")
    # Every process and directory of ours is taken down by the blocks that made them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.quick:
        _, measured = _measure(options.only, QUICK)
        return _print(measured)
    folder = _ROOT / "docs"
    kept = folder / "performance" / "results.json"
    sections, facts = result.load(kept)
    code = 0
    if not options.page:
        facts, measured = _measure(options.only, FULL)
        measured = {name: _beside(section, sections.get(name)) for name, section in measured.items()}
        kept_and_new = sections | measured
        sections = {name: kept_and_new[name] for name in SECTIONS if name in kept_and_new}
        result.save(sections, facts, kept)
        code = _print(measured)
    whole = sections.keys() == SECTIONS.keys()
    try:
        text = page.text(sections, facts, comments, "performance", whole=whole)
    except notes.NotesUnreadable as error:
        sys.exit(f"{_NOTES.name}: {error}")
    (folder / "performance.md").write_text(text)
    plot.draw_all(sections, folder / "performance")
    return code


def _measure(names: list[str], size: Size) -> tuple[dict[str, str], dict[str, Section]]:
    measured = {}
    # Not in /tmp, which may be memory: here is the disk that the checkout lies on.
    (_ROOT / ".rmos").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_ROOT / ".rmos", prefix="bench-") as scratch:
        facts = machine.facts(Path(scratch))
        for name in names:
            began = time.monotonic()
            section = SECTIONS[name](Path(scratch), size)
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            measured[name] = replace(section, measured=f"{when} on {facts['processor']}")
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return facts, measured


def _beside(section: Section, before: Section | None) -> Section:
    """Return the section with the ratios of the run before beside its own."""
    ratios = {row.key: row.ratio for row in before.rows} if before else {}
    return replace(section, rows=[replace(row, before=ratios.get(row.key)) for row in section.rows])


def _print(measured: Mapping[str, Section]) -> int:
    """Show the rows, and return 1 when one misses its mark."""
    rows = [row for section in measured.values() for row in section.rows]
    table = Table("row", "reference", "ratio", "spread", "to reach")
    for row in rows:
        spread = f"{row.low:.2f} to {row.high:.2f}"
        mark = row.mark + ("" if row.reached else "  MISSED")
        table.add_row(row.name, row.reference, f"{row.ratio:.2f}", spread, mark)
    Console().print(table)
    return int(not all(row.reached for row in rows))


if __name__ == "__main__":
    sys.exit(main())
