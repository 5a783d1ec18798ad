"""The records of a source made ready to be stored, or the entry that says why one cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rmos_runs.operations.migration.advisories import Problem, Tie, advisories
from rmos_runs.operations.migration.convert import Converted, convert
from rmos_runs.operations.migration.decoding import Unreadable, decode
from rmos_runs.operations.migration.report import Entry, Fate
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import RawRecord, Source, Stray
from rmos_shared.canonical import sha256_hex
from rmos_shared.runs.writer import StoredRun, as_stored


@dataclass(frozen=True, slots=True)
class Prepared:
    """One run with its advisories, as it is to be stored."""

    place: str
    converted: Converted
    stored: StoredRun
    ties: tuple[Tie, ...]
    problems: tuple[Problem, ...]

    @property
    def run_id(self) -> str:
        """Its id, which is the old one."""
        return self.converted.artifact.run_id

    @property
    def date(self) -> str:
        """Its partition."""
        return self.converted.artifact.date

    @property
    def attachments(self) -> tuple[tuple[bytes, str], ...]:
        """Content and suffix of all that the run and its links name."""
        originals = ((data, ".json") for tie in self.ties for data in tie.originals)
        return (*self.converted.attachments, *originals)

    @property
    def size_bytes(self) -> int:
        """About how much memory it holds."""
        return len(self.stored[1]) + sum(len(data) for data, _ in self.attachments)

    def entry(self, fate: Fate, reason: str | None = None) -> Entry:
        """Return what is to be said of the run."""
        return Entry("run", self.place, fate, self.run_id, reason, self.converted.violations)

    def tie_entry(self, tie: Tie, fate: Fate, reason: str | None = None) -> Entry:
        """Return what is to be said of one of its links."""
        return Entry("link", tie.place, fate, self.run_id, reason)

    def problem_entries(self) -> Iterator[Entry]:
        """Yield what could not become a link."""
        for problem in self.problems:
            yield Entry("link", problem.place, Fate.UNREADABLE, self.run_id, problem.reason)

    def orphan_entries(self, reason: str) -> Iterator[Entry]:
        """Yield its links where the run itself is not stored."""
        for tie in self.ties:
            yield self.tie_entry(tie, Fate.ORPHAN, reason)
        yield from self.problem_entries()


def prepared(source: Source, scratch: Scratch) -> Iterator[Prepared | Entry]:
    """Yield every record of the source, in its order; of one id the first one counts."""
    for raw in source.records():
        if isinstance(raw, Stray):
            yield Entry("link", raw.place, Fate.ORPHAN, reason="its run is not in the source")
            continue
        try:
            yield from _prepare(raw, scratch)
        except Unreadable as error:
            yield Entry("run", raw.place, Fate.UNREADABLE, reason=error.reason)
            for link in raw.links:
                yield Entry("link", link.place, Fate.ORPHAN, reason="its run cannot be read")


def _prepare(raw: RawRecord, scratch: Scratch) -> Iterator[Prepared | Entry]:
    if raw.data is None:
        raise Unreadable(raw.reason or "cannot be read")
    decoded = decode(raw.data)
    converted = convert(decoded, named=raw.named, data=raw.data)
    run = converted.artifact
    digest = sha256_hex(raw.data)
    earlier = scratch.first_of(run.run_id, raw.place, digest)
    if earlier is not None:
        place, known = earlier
        fate, content = (Fate.REPEATED, "the same") if known == digest else (Fate.DUPLICATE, "other")
        yield Entry("run", raw.place, fate, run.run_id, f"of the same id as {place}, with {content} content")
        for link in raw.links:
            yield Entry(
                "link", link.place, Fate.ORPHAN, run.run_id, f"beside a second record of {run.run_id}"
            )
        return
    found = list(advisories(run, decoded.fields, raw.place, raw.links))
    yield Prepared(
        raw.place,
        converted,
        as_stored(run),
        tuple(item for item in found if isinstance(item, Tie)),
        tuple(item for item in found if isinstance(item, Problem)),
    )
