"""The migration itself: each record published in groups, every step of it safe to repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmos_runs.operations.migration.advisories import Tie
from rmos_runs.operations.migration.preparation import Prepared, prepared
from rmos_runs.operations.migration.report import Entry, Fate
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import Source
from rmos_runs.operations.migration.target import Target
from rmos_shared.errors import CorruptArtifact, RmosError, StoreUnavailable
from rmos_shared.runs import layout as keys
from rmos_shared.runs.writer import RunWriter, StoredRun
from rmos_shared.store.base import Outcome

#: Runs of one group, which share their syncs; and most bytes of it, for a group is held in memory.
_GROUP = 100
_GROUP_BYTES = 33_554_432
_FATES = {
    Outcome.CREATED: Fate.CREATED,
    Outcome.ALREADY_SAME: Fate.ALREADY_SAME,
    Outcome.CONFLICT: Fate.CONFLICT,
}
#: What a publication came to: its fate, and why it failed.
_Result = tuple[Fate, str | None]


class Migration:
    """Publishes what a source holds; what is in the store already stays.

    A run is durable before its links are written, and they before their reviews. Killed anywhere, it leaves
    whole records only; run again, it writes the rest. Workers may be live on the same store.
    """

    def __init__(
        self, source: Source, target: Target, writer: RunWriter, scratch: Scratch, *, limit: int | None = None
    ) -> None:
        """Write at most ``limit`` new runs."""
        self._source = source
        self._target = target
        self._writer = writer
        self._scratch = scratch
        self._left = limit

    def entries(self) -> Iterator[Entry]:
        """Migrate, yielding each record once what is said of it is true.

        Raises:
            StoreUnavailable: the store is away or full; what was yielded is stored.
        """
        self._target.learn()
        group: list[Prepared] = []
        held = 0
        for item in prepared(self._source, self._scratch):
            if isinstance(item, Entry):
                yield item
                continue
            group.append(item)
            held += item.size_bytes
            if len(group) >= self._most() or held > _GROUP_BYTES:
                yield from self._publish(group)
                group, held = [], 0
            if self._left == 0:
                return
        yield from self._publish(group)

    def _most(self) -> int:
        return _GROUP if self._left is None else min(_GROUP, self._left)

    def _publish(self, group: Sequence[Prepared]) -> Iterator[Entry]:
        free = []
        for run in group:
            taken = self._target.elsewhere(run)
            if taken is None and (taken := self._attach_files(run)) is None:
                free.append(run)
            else:
                yield run.entry(Fate.CONFLICT, taken)
                yield from run.orphan_entries("its run is not stored")
        stored = []
        for run, (fate, reason) in zip(free, self._put([run.stored for run in free]), strict=True):
            yield run.entry(fate, reason)
            if fate is Fate.CONFLICT:
                yield from run.orphan_entries("its run is another one in the store")
                continue
            if fate is Fate.CREATED and self._left is not None:
                self._left -= 1
            yield from run.problem_entries()
            stored.append(run)
        yield from self._publish_ties([(run, tie) for run in stored for tie in run.ties])

    def _attach_files(self, run: Prepared) -> str | None:
        """Publish what must lie there before the run that names it; return why it cannot be."""
        if not run.attachments:
            return None
        # Of a run that will be refused, nothing is to be left behind.
        taken = self._target.taken(run)
        try:
            for data, suffix in run.attachments if taken is None else ():
                self._writer.put_attachment(data, suffix)
        except CorruptArtifact as error:
            return str(error)
        return taken

    def _publish_ties(self, ties: Sequence[tuple[Prepared, Tie]]) -> Iterator[Entry]:
        links = [
            (keys.link_key(run.date, run.run_id, tie.link.advisory_id), tie.link.to_bytes())
            for run, tie in ties
        ]
        reviewed = []
        for (run, tie), result in zip(ties, self._put(links), strict=True):
            fate, reason = self._same_advisory(tie) if result[0] is Fate.CONFLICT else result
            yield run.tie_entry(tie, fate, reason)
            if fate is not Fate.CONFLICT:
                reviewed += [(run, tie, review) for review in tie.reviews]
        reviews = [(keys.review_key(run.date, review), review.to_bytes()) for run, _, review in reviewed]
        for (run, tie, _), (fate, reason) in zip(reviewed, self._put(reviews), strict=True):
            yield Entry("review", tie.place, fate, run.run_id, reason)

    def _same_advisory(self, tie: Tie) -> _Result:
        """Say whether the link that has the name ties the same advisory, which would be a repeat."""
        try:
            outcome = self._writer.attach(tie.link)
        except StoreUnavailable:
            raise
        except RmosError as error:
            return Fate.CONFLICT, str(error)
        taken = "the store holds another advisory of this id, and it stays"
        return _FATES[outcome], taken if outcome is Outcome.CONFLICT else None

    def _put(self, records: Sequence[StoredRun]) -> list[_Result]:
        try:
            return [self._result(*pair) for pair in zip(records, self._writer.publish(records), strict=True)]
        except CorruptArtifact:
            # Each by itself then, so that what is wrong with one place leaves the others alone.
            return [self._put_one(record) for record in records]

    def _put_one(self, record: StoredRun) -> _Result:
        try:
            return self._result(record, self._writer.publish([record])[0])
        except CorruptArtifact as error:
            return Fate.CONFLICT, str(error)

    @staticmethod
    def _result(record: StoredRun, outcome: Outcome) -> _Result:
        conflict = outcome is Outcome.CONFLICT
        return _FATES[outcome], f"{record[0]} holds other content, and stays" if conflict else None
