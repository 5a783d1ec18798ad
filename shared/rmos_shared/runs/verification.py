"""The store held against itself: is every file what its name says, and does each belong to something there?

Reads, and changes nothing. Memory holds the names of one partition, however many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.errors import CorruptArtifact
from rmos_shared.ids import uuid7_time
from rmos_shared.runs import layout as keys
from rmos_shared.runs.attachment_key import ATTACHMENTS, attachment_sha256
from rmos_shared.runs.lookup import not_found
from rmos_shared.runs.model import RunArtifact, attached, original_of
from rmos_shared.runs.record import parse
from rmos_shared.store.base import ArtifactStore, KeyInvalid

#: What a file is by its place and name; ``foreign`` is none of ours.
FileKind = Literal["artifact", "link", "review", "attempt", "attachment", "foreign"]


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was looked at."""

    key: str
    kind: FileKind
    #: What is wrong with it; None when it is well.
    damage: str | None


@dataclass(slots=True)
class _Partition:
    """What is known of one day while its files are checked."""

    day: str
    runs: set[str] = field(default_factory=set)
    #: Run id and advisory id of each link.
    links: set[tuple[str, str]] = field(default_factory=set)


class StoreVerification:
    """Proves files one by one: shape, hashes, place, and that what a file names is there.

    Every method raises ``StoreUnavailable`` when the store is away.
    """

    def __init__(self, store: ArtifactStore) -> None:
        """Read ``store``."""
        self._store = store

    def days(self, date_from: date | None = None, date_to: date | None = None) -> list[str]:
        """Return the days, oldest first, of which anything is stored: artifacts, reviews or attempts."""
        first, last = date_from or date.min, (date_to or date.max).isoformat()
        days: set[str] = set()
        for branch in ("", keys.REVIEWS, keys.ATTEMPTS):
            # "0" sorts just after "/", so this passes by all of the day before.
            after = f"{branch}{first - timedelta(days=1)}0" if first > date.min else ""
            for name in self._names(branch, after):
                if name > last:
                    break
                if keys.partition_day(name) is not None:
                    days.add(name)
        return sorted(days)

    def day(self, day: str) -> Iterator[Checked]:
        """Check every file of one day: its partition, and the reviews and attempts of its runs."""
        partition = _Partition(day)
        # Artifacts first, for links are held against them.
        yield from self._each(f"{day}/", "artifact", partition, only=lambda key: not keys.is_link(key))
        yield from self._each(f"{day}/", "link", partition, only=keys.is_link)
        yield from self._each(f"{keys.REVIEWS}{day}/", "review", partition)
        yield from self._each(f"{keys.ATTEMPTS}{day}/", "attempt", partition)

    def run(self, run_id: str) -> Iterator[Checked]:
        """Check all that is stored of one run.

        Raises:
            RunNotFound: nothing is stored under its name. For an older id every day is asked.
        """
        moment = uuid7_time(run_id)
        days = self.days() if moment is None else [moment.date().isoformat()]
        day = next((day for day in days if self._is_there(keys.run_key(day, run_id))), None)
        if day is None:
            raise not_found(run_id)
        partition = _Partition(day)
        yield self._checked(keys.run_key(day, run_id), "artifact", partition)
        yield from self._each(keys.link_prefix(day, run_id), "link", partition)
        yield from self._each(keys.review_prefix(day, run_id), "review", partition)
        yield from self._each(keys.attempt_prefix(day, run_id), "attempt", partition)

    def elsewhere(self) -> Iterator[Checked]:
        """Check what lies in no partition: each attachment, and names at the root that are none of ours."""
        yield from self._each(ATTACHMENTS, "attachment", _Partition(""))
        for name in self._names("", ""):
            if keys.partition_day(name) is None and not name.startswith("_"):
                yield Checked(name, "foreign", "is neither a day nor a directory of the store's own")

    # -- one file -------------------------------------------------------------------------------------

    def _each(
        self, prefix: str, kind: FileKind, partition: _Partition, only: Callable[[str], bool] = lambda _: True
    ) -> Iterator[Checked]:
        try:
            for key in self._store.list(prefix):
                if only(key):
                    yield self._checked(key, kind, partition)
        except CorruptArtifact as error:
            yield Checked(error.key, kind, error.reason)  # the directory itself cannot be read

    def _checked(self, key: str, kind: FileKind, partition: _Partition) -> Checked:
        if kind in {"artifact", "link"} and (
            not key.endswith(".json") or "/" in key.removeprefix(f"{partition.day}/")
        ):
            # Contract section 3: a partition holds nothing but artifacts and links.
            return Checked(key, "foreign", "is no artifact and no link, and lies in a partition")
        prove = {
            "artifact": self._artifact,
            "link": self._link,
            "review": self._review,
            "attempt": self._attempt,
            "attachment": self._attachment,
        }[kind]
        try:
            prove(key, partition)
        except CorruptArtifact as error:
            return Checked(key, kind, error.reason)
        return Checked(key, kind, None)

    def _artifact(self, key: str, partition: _Partition) -> None:
        # By its name, not its content: the links of a damaged artifact are not orphans.
        partition.runs.add(key.removeprefix(f"{partition.day}/").removesuffix(".json"))
        run = parse(RunArtifact, key, self._bytes(key), keys.artifact_key)
        for _, path, hash_name in attached(run.outputs):
            digest = getattr(run.hashes, hash_name) if hash_name else attachment_sha256(path)
            if self._digest(key, path) != digest:
                raise CorruptArtifact(key, f"{path}, which it names, has another hash than it says")
        original = original_of(run.meta)
        if original is not None and self._digest(key, original) != attachment_sha256(original):
            raise CorruptArtifact(key, f"{original}, its original bytes, has another hash than it says")

    def _link(self, key: str, partition: _Partition) -> None:
        link = parse(
            AdvisoryLink,
            key,
            self._bytes(key),
            lambda link: keys.link_key(partition.day, link.run_id, link.advisory_id),
        )
        partition.links.add((link.run_id, link.advisory_id))
        self._needs_run(key, link.run_id, partition)

    def _review(self, key: str, partition: _Partition) -> None:
        review = parse(Review, key, self._bytes(key), lambda review: keys.review_key(partition.day, review))
        link = keys.link_key(partition.day, review.run_id, review.advisory_id)
        if (review.run_id, review.advisory_id) not in partition.links and not self._is_there(link):
            raise CorruptArtifact(key, f"what it judges, {link}, is not stored")

    def _attempt(self, key: str, partition: _Partition) -> None:
        attempt = parse(
            Attempt, key, self._bytes(key), lambda attempt: keys.attempt_key(partition.day, attempt)
        )
        self._needs_run(key, attempt.run_id, partition)

    def _needs_run(self, key: str, run_id: str, partition: _Partition) -> None:
        # Looked for once more: it may have been stored after the artifacts were listed.
        if run_id not in partition.runs and not self._is_there(keys.run_key(partition.day, run_id)):
            raise CorruptArtifact(key, f"its run, {run_id}, is not stored")

    def _attachment(self, key: str, _: _Partition) -> None:
        claimed = attachment_sha256(key)
        if claimed is None:
            raise CorruptArtifact(key, "its name is none of an attachment")
        found = self._hash(key)
        if found is None:
            raise CorruptArtifact(key, "it was listed and is gone")
        if found != claimed:
            raise CorruptArtifact(key, "the content has another hash than its name says")

    # -- the store ------------------------------------------------------------------------------------

    def _bytes(self, key: str) -> bytes:
        try:
            data = self._store.get(key)
        except KeyInvalid:
            raise CorruptArtifact(key, "its name is none that this store gives") from None
        if data is None:
            raise CorruptArtifact(key, "it was listed and is gone")
        return data

    def _digest(self, key: str, path: str) -> str:
        try:
            digest = self._hash(path)
        except (KeyInvalid, CorruptArtifact):
            raise CorruptArtifact(key, f"{path}, which it names, cannot be read") from None
        if digest is None:
            raise CorruptArtifact(key, f"{path}, which it names, is not stored")
        return digest

    def _hash(self, key: str) -> str | None:
        """Return the hash of what is stored under ``key``, read in pieces; None when nothing is."""
        digest = hashlib.sha256()
        with self._store.pieces(key) as pieces:
            if pieces is None:
                return None
            for piece in pieces:
                digest.update(piece)
        return digest.hexdigest()

    def _is_there(self, key: str) -> bool:
        try:
            return self._store.head(key) is not None
        except CorruptArtifact:
            return True  # reading it says what is wrong
        except KeyInvalid:
            return False

    def _names(self, branch: str, after: str) -> Iterator[str]:
        """Yield the names in one directory, passing by what lies below them."""
        while (key := next(iter(self._store.list(branch, after)), None)) is not None:
            name, below, _ = key.removeprefix(branch).partition("/")
            yield name
            after = f"{branch}{name}0" if below else key
