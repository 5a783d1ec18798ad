"""The store that records are migrated into: what of a run is there already."""

from __future__ import annotations

from collections.abc import Iterator

from rmos_runs.operations.migration.advisories import Tie
from rmos_runs.operations.migration.preparation import Prepared
from rmos_runs.operations.migration.report import Entry, Fate
from rmos_runs.operations.migration.scratch import Scratch
from rmos_shared.advisories.model import AdvisoryLink
from rmos_shared.errors import CorruptArtifact
from rmos_shared.ids import uuid7_time
from rmos_shared.runs import layout as keys
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.files import parse_link
from rmos_shared.store.base import ArtifactStore


class Target:
    """Raises ``StoreUnavailable`` when the store is away."""

    def __init__(self, store: ArtifactStore, scratch: Scratch) -> None:
        """Look at ``store``, and remember its older runs in ``scratch``."""
        self._store = store
        self._scratch = scratch

    def learn(self) -> None:
        """Remember where each run lies whose id does not tell: it may be another place than the source says.

        Lists the whole store once; otherwise each such run would be looked for in every partition.
        """
        self._scratch.add_stored((run_id, key) for run_id, key in self.runs() if uuid7_time(run_id) is None)

    def runs(self) -> Iterator[tuple[str, str]]:
        """Yield id and key of every run, by their names."""
        for key in self._partition_keys():
            if not keys.is_link(key):
                yield key.partition("/")[2].removesuffix(".json"), key

    def links(self) -> int:
        """Count the links, by their names."""
        return sum(1 for key in self._partition_keys() if keys.is_link(key))

    def elsewhere(self, run: Prepared) -> str | None:
        """Return why a run must not be stored: its id is taken, in another partition."""
        known = self._scratch.stored_key(run.run_id)
        if known is None or known == run.stored[0]:
            return None
        return f"the store holds this id as {known}"

    def taken(self, run: Prepared) -> str | None:
        """Return why a run cannot be stored under its own key: something else is there."""
        fate, reason = self._compare(*run.stored, Fate.NEW)
        return reason if fate is Fate.CONFLICT else None

    def look(self, run: Prepared, absent: Fate) -> Iterator[Entry]:
        """Compare a run and all that belongs to it with what is stored; what is not there is ``absent``."""
        taken = self.elsewhere(run)
        if taken is not None:
            yield run.entry(Fate.CONFLICT, taken)
            yield from run.orphan_entries("its run is another one in the store")
            return
        fate, reason = self._compare(*run.stored, absent)
        if fate is Fate.ALREADY_SAME:
            for data, suffix in run.converted.attachments:
                fate, reason = self._compare(attachment_key(data, suffix), data, absent)
                if fate is not Fate.ALREADY_SAME:
                    break
        yield run.entry(fate, reason)
        if fate is Fate.CONFLICT:
            yield from run.orphan_entries("its run is another one in the store")
            return
        yield from run.problem_entries()
        for tie in run.ties:
            yield from self._look_at(run, tie, absent)

    def _look_at(self, run: Prepared, tie: Tie, absent: Fate) -> Iterator[Entry]:
        fate, reason = self._compare_link(run, tie.link, absent)
        if fate is Fate.ALREADY_SAME:
            for data in tie.originals:
                fate, reason = self._compare(attachment_key(data, ".json"), data, absent)
                if fate is not Fate.ALREADY_SAME:
                    break
        yield run.tie_entry(tie, fate, reason)
        for review in tie.reviews:
            key = keys.review_key(run.date, review)
            fate, reason = self._compare(key, review.to_bytes(), absent)
            yield Entry("review", tie.place, fate, run.run_id, reason)

    def _compare_link(self, run: Prepared, link: AdvisoryLink, absent: Fate) -> tuple[Fate, str | None]:
        key = keys.link_key(run.date, link.run_id, link.advisory_id)
        fate, reason = self._compare(key, link.to_bytes(), absent)
        if fate is not Fate.CONFLICT:
            return fate, reason
        try:
            data = self._store.get(key)
            if data is not None and parse_link(key, data).same_advisory(link):
                return Fate.ALREADY_SAME, None
        except CorruptArtifact as error:
            return Fate.CONFLICT, str(error)
        return fate, reason

    def _compare(self, key: str, data: bytes, absent: Fate) -> tuple[Fate, str | None]:
        try:
            stored = self._store.get(key)
        except CorruptArtifact as error:
            return Fate.CONFLICT, str(error)
        if stored is None:
            return absent, f"{key} is not stored" if absent is Fate.MISSING else None
        if stored == data:
            return Fate.ALREADY_SAME, None
        return Fate.CONFLICT, f"{key} holds other content, and stays"

    def _partition_keys(self) -> Iterator[str]:
        for key in self._store.list(""):
            if key[0] > "9":
                break  # the partitions are behind us: names of ours that are none begin with "_"
            if keys.partition_day(keys.partition_of(key)) is not None and key.endswith(".json"):
                yield key
