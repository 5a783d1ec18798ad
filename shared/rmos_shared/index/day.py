"""One day of the store: which files belong to which run, and what they say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from rmos_shared.errors import CorruptArtifact
from rmos_shared.index.row import CorruptRow, Facts, IndexRow, facts_of, place_of
from rmos_shared.runs import layout as keys
from rmos_shared.runs.files import RunFiles, reported
from rmos_shared.store.base import ArtifactStore, KeyInvalid

_ADVISORY = "_advisory_"


@dataclass(frozen=True, slots=True)
class RunNames:
    """The names of one run's files: enough to read it without listing anything again."""

    file: str
    links: tuple[str, ...] = ()
    reviews: int = 0
    attempts: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many links, reviews and attempts there are."""
        return len(self.links), self.reviews, self.attempts


@dataclass(slots=True)
class DayNames:
    """The names of one day. Memory holds those of one partition, as every reader's does."""

    #: The artifacts, in order.
    files: list[str] = field(default_factory=list)
    links: dict[str, list[str]] = field(default_factory=dict)
    reviews: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)

    def runs(self) -> Iterator[RunNames]:
        """Yield each run's names, in order."""
        return map(self.run, self.files)

    def run(self, file: str) -> RunNames:
        """Return the names of the run whose artifact is ``file``."""
        run_id = place_of(file).partition("/")[2]
        return RunNames(file, tuple(self.links.get(run_id, ())), self.reviews[run_id], self.attempts[run_id])


class DayReader:
    """Reads days. All methods raise ``StoreUnavailable`` when the store is away."""

    def __init__(self, store: ArtifactStore) -> None:
        """Read from ``store``."""
        self._store = store
        self._files = RunFiles(store)

    def names(self, day: str) -> DayNames:
        """Return the names of a day.

        Raises:
            CorruptArtifact: the partition cannot be listed.
        """
        names = DayNames()
        links: defaultdict[str, list[str]] = defaultdict(list)
        for key in self._files.json_keys(f"{day}/"):
            if keys.is_link(key):
                for run_id in _possible_runs(key.partition("/")[2]):
                    links[run_id].append(key)
            else:
                names.files.append(key)
        names.links = dict(links)
        names.reviews = self._counted(f"{keys.REVIEWS}{day}/")
        names.attempts = self._counted(f"{keys.ATTEMPTS}{day}/")
        return names

    def row(self, names: RunNames) -> IndexRow | CorruptRow:
        """Read a run whole, and prove it."""
        try:
            run = self._files.run(names.file)
        except CorruptArtifact as error:
            return CorruptRow(place_of(names.file), error.reason, self.seen(names.file))
        return IndexRow.of(run, names.file, self.facts(names))

    def new_row(self, file: str) -> IndexRow | CorruptRow | None:
        """Read a run that may not be there, as if nothing lay beside it; None when it is not there."""
        return None if self.is_gone(file) else self.row(RunNames(file))

    def is_gone(self, file: str) -> bool:
        """Say whether nothing has this name."""
        try:
            return self._store.head(file) is None
        except (CorruptArtifact, KeyInvalid):
            return False

    def facts(self, names: RunNames) -> Facts:
        """Read the files beside an artifact. What cannot be read of them is reported, and the run waits."""
        day, _, name = place_of(names.file).partition("/")
        links, damaged = [], False
        for key in names.links:
            try:
                link = self._files.link(key)
            except CorruptArtifact:
                damaged = True
            else:
                # Names alone cannot tell the links of a and a_advisory apart.
                if link.run_id == name:
                    links.append(link)
        reviews = []
        if names.reviews and any(not link.approved for link in links):
            # Without those that cannot be read its advisories wait, as they do in the review queue.
            with suppress(CorruptArtifact):
                reviews = self._files.reviews(day, name)
        return facts_of(links, reviews, counts=names.counts, damaged=damaged)

    def seen(self, file: str) -> str | None:
        """Return size and time of a file; None when they cannot be told."""
        try:
            head = self._store.head(file)
        except (CorruptArtifact, KeyInvalid):
            return None
        return None if head is None else f"{head.size_bytes} {head.modified_at.timestamp():.6f}"

    def reviews(self, day: str, run_id: str) -> int:
        """Return how many reviews there are of a run."""
        return self._counted(f"{keys.REVIEWS}{day}/", run_id)[run_id]

    def _counted(self, branch: str, run_id: str = "") -> Counter[str]:
        """Return how many files each run has in a branch, or one run."""
        prefix = f"{branch}{run_id}/" if run_id else branch
        try:
            names = [name.removeprefix(branch) for name in self._store.list(prefix)]
        except CorruptArtifact as error:
            reported(error)
            # Something is there; reading it says what.
            return Counter({run_id: 1})
        # So it is with a run's directory that cannot be listed, which stands by its own name.
        return Counter(name.partition("/")[0] for name in names if name.endswith(".json") or "/" not in name)


def _possible_runs(link: str) -> Iterator[str]:
    """Yield each run that a link may belong to by its name: nearly always one."""
    start = link.find(_ADVISORY)
    while start >= 0:
        yield link[:start]
        # What ends one may begin the next.
        start = link.find(_ADVISORY, start + 1)
