"""The audit log as it lies in a store: its checkpoints, its entries, and where in it a key is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import Entry, EntryInvalid, RecordEntry, SealEntry, key_of, parse_entry
from rmos_shared.auditlog.layout import CHECKPOINTS, MOST, checkpoint_key, checkpoint_size
from rmos_shared.auditlog.note import Note, NoteInvalid
from rmos_shared.auditlog.tail import Tail
from rmos_shared.auditlog.tiles import WIDTH, HashReader, Tile, read_bundle, width_at
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore

#: A file is searched for from that long before its time on: clocks of machines differ.
SLACK = timedelta(minutes=5)
#: And from that long before it, before it is called absent: they may differ by hours where nobody looks.
MOST_SLACK = timedelta(days=1)

#: Nothing was sealed before; names may tell of any year.
_FIRST = datetime(1970, 1, 3, tzinfo=UTC)
#: Keys whose place is remembered; some 20 MiB.
_REMEMBERED = 100_000


class AuditLog:
    """Reads the log of ``origin`` in a store. What it reads is not proven; see ``sealer`` and the verifier.

    All methods raise ``StoreUnavailable`` when the store is away, and ``CorruptArtifact`` for a part of the
    log that is missing or is not what its name says. Not safe for several threads at once.
    """

    def __init__(self, store: ArtifactStore, origin: str) -> None:
        """Read ``store``."""
        self.store = store
        self.origin = origin
        #: How often a log was found that does not continue what was known of it: a backup took its place.
        self.replaced = -1
        self._forget()

    def _forget(self) -> None:
        """Know nothing of the log: at the start, and when it was replaced."""
        self.replaced += 1
        #: A size that has a checkpoint; the newest is that one or a later.
        self._known = 0
        self._begun_at: datetime | None = None
        #: Size of the last tree that is known to end with a seal that adopts, and whether no later one does.
        self._adopted = 0
        self._adopted_at: datetime | None = None
        self._adoption_over = False
        #: Where keys were found, and the checkpoint of that time: what is asked for once is asked for again.
        self._found: dict[str, int] = {}
        self._found_in: Checkpoint | None = None
        self._tail: Tail | None = None

    # -- checkpoints ----------------------------------------------------------------------------------

    def newest(self) -> Checkpoint | None:
        """Return the checkpoint of the largest tree; None while there is none."""
        size = self.newest_size()
        return self.checkpoint(size) if size else None

    def newest_size(self) -> int:
        """Return the size of the largest tree that has a checkpoint; 0 while there is none.

        Nothing tells it but the names, so they are searched: in one step where it is the size asked last,
        else in as many as that number has binary digits.
        """
        if self._known and next(self.sizes(self._known - 1), None) != self._known:
            self._forget()
        low = high = self._known
        step = 1
        # In larger and larger steps away from what is known, then halving the last of them.
        while high < MOST - 1 and (found := self._size_after(high)) is not None:
            low, high, step = found, min(found + step, MOST - 1), step * 2
        while low < high:
            middle = (low + high) // 2
            found = self._size_after(middle)
            if found is None:
                high = middle
            else:
                low = found
        self._known = low
        return low

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint of the tree of that size."""
        return self.note(size)[0]

    def note(self, size: int) -> tuple[Checkpoint, Note]:
        """Return the checkpoint of the tree of that size, and its note, whose signatures are not proven."""
        key = checkpoint_key(size)
        data = self.store.get(key)
        if data is None:
            raise CorruptArtifact(key, "this checkpoint of the audit log is missing")
        try:
            checkpoint, note = Checkpoint.parse_note(data)
        except NoteInvalid as error:
            raise CorruptArtifact(key, str(error)) from None
        if checkpoint.size != size:
            raise CorruptArtifact(key, f"it is the checkpoint of {checkpoint.size} entries")
        if checkpoint.origin != self.origin:
            raise CorruptArtifact(key, f"it is a checkpoint of another log than {self.origin}")
        return checkpoint, note

    def sizes(self, after: int = 0) -> Iterator[int]:
        """Yield the sizes that have a checkpoint, from the first larger than ``after`` on."""
        for key in self.store.list(CHECKPOINTS, checkpoint_key(after)):
            # Foreign names are the verifier's to report.
            if (size := checkpoint_size(key)) is not None:
                yield size

    # -- entries --------------------------------------------------------------------------------------

    def hash_reader(self, size: int | None = None) -> HashReader:
        """Return the hashes and proofs of the tree of a size that has a checkpoint; the newest if omitted."""
        return HashReader(self.store.get, self.newest_size() if size is None else size)

    def entries(self, start: int = 0, end: int | None = None, *, size: int | None = None) -> Iterator[bytes]:
        """Yield the entries from ``start`` to before ``end``, as bytes; memory holds one bundle.

        ``size`` is that of a tree with a checkpoint which has them all, and ``end`` if that is omitted.
        """
        size = self.newest_size() if size is None else size
        end = size if end is None else end
        if not 0 <= start <= end <= size:
            raise ValueError(f"a log of {size} entries has none from {start} to {end}")
        for index in range(start // WIDTH, -(-end // WIDTH)):
            bundle = read_bundle(self.store.get, Tile(None, index, width_at(None, index, size)))
            first = index * WIDTH
            yield from bundle[max(0, start - first) : end - first]

    def entry(self, index: int, size: int) -> Entry:
        """Return entry ``index`` of the tree of a size that has a checkpoint."""
        (line,) = self.entries(index, index + 1, size=size)
        return _parsed(line, index, size)

    def seal(self, size: int) -> SealEntry:
        """Return the last entry of the tree of a size that has a checkpoint: what its seal says of itself."""
        return last_seal(list(self.entries(size - 1, size, size=size)), size)

    def adopted_last(self, size: int) -> str | None:
        """Return the last key that the seal which ends at ``size`` adopted; None where it did not adopt."""
        return last_adopted(list(self.entries(max(0, size - 2), size, size=size)), size)

    def begun_at(self) -> datetime | None:
        """Return when the first seal was made; None while there is none."""
        if self._begun_at is None and (first := next(self.sizes(), None)) is not None:
            self._begun_at = self.seal(first).at
        return self._begun_at

    def adopted_until(self) -> datetime | None:
        """Return when the newest seal was made that adopted what was there before the log; None if none did.

        They are the first seals of the log, in an unbroken row, so no more than these are read.
        """
        if not self._adoption_over:
            for size in self.sizes(self._adopted):
                if self.adopted_last(size) is None:
                    self._adoption_over = True
                    break
                self._adopted, self._adopted_at = size, self.seal(size).at
        return self._adopted_at

    def find(self, keys: Mapping[str, datetime], *, size: int | None = None) -> dict[str, int]:
        """Return the indexes of those keys that are in the log.

        Each is given with the earliest time at which it can have been sealed, by clocks that may be
        ``MOST_SLACK`` apart. Entries are looked through from the earliest of them to the newest entry, or
        until all are found: the cost is that of what was sealed since then, once for a key that is in the
        log. A key that has several entries is found at the first of these.
        """
        size = self.newest_size() if size is None else size
        found: dict[str, int] = {}
        for slack in (SLACK, MOST_SLACK):
            rest = {key: max(time, _FIRST) - slack for key, time in keys.items() if key not in found}
            found |= self.find_since(rest, size=size)
        return found

    def find_since(self, keys: Mapping[str, datetime], *, size: int | None = None) -> dict[str, int]:
        """As ``find``, by times of the ledger's own clock, which is that of the seals."""
        size = self.newest_size() if size is None else size
        if not keys or not size:
            return {}
        if self._found_in is not None and self._found_in != self.checkpoint(self._found_in.size):
            self._forget()
        found = {key: self._found[key] for key in keys if self._found.get(key, size) < size}
        wanted = {key: time for key, time in keys.items() if key not in found}
        if wanted:
            new = self._search(wanted, size)
            self._remember(new, size)
            found |= new
        return found

    def grown(self, start: int, lines: Sequence[bytes], checkpoint: Checkpoint) -> None:
        """Take note of the entries that were added from ``start`` on: what is in memory is not read again."""
        if self._tail is not None and self._tail.end == start:
            self._tail.add(lines)
            self._found_in = checkpoint

    def _search(self, keys: Mapping[str, datetime], size: int) -> dict[str, int]:
        """Return the indexes of those that were sealed since; what lies in the tail is not read again."""
        since = min(keys.values())
        tail = self._tail if self._tail is not None and self._tail.start <= size else None
        found: dict[str, int] = {}
        if tail is None or since < tail.since:
            start = self.size_before(since, size)
            end = size if tail is None else max(start, tail.start)
            before = Tail(start, since)
            for index, line in enumerate(self.entries(start, end, size=size), start):
                before.add([line])
                key = key_of(line)
                if key is not None and key in keys and key not in found:
                    found[key] = index
                    if len(found) == len(keys):
                        return found
            if tail is not None and before.end == tail.start:
                before.join(tail)
            tail = before if tail is None or before.end >= tail.end else tail
        if tail.end < size:
            tail.add(self.entries(tail.end, size, size=size))
        self._tail = tail
        held = {key: place for key in keys if (place := tail.find(key)) is not None and place < size}
        return held | found

    def _remember(self, found: Mapping[str, int], size: int) -> None:
        self._found |= found
        for key in list(islice(self._found, max(0, len(self._found) - _REMEMBERED))):
            del self._found[key]
        if self._found_in is None or size > self._found_in.size:
            # The tail is of that tree, too.
            self._found_in = self.checkpoint(size)

    def size_before(self, moment: datetime, size: int) -> int:
        """Return the size of the largest tree, up to ``size`` entries, that was sealed before ``moment``.

        ``size`` must have a checkpoint. 0 where the first seal is later.
        """
        if self.seal(size).at < moment:
            return size
        # All trees up to ``low`` are earlier; ``later`` is not, and none lies between ``high`` and it.
        low, high, later = 0, size, size
        while low < high:
            middle = (low + high) // 2
            found = self._size_after(middle)
            if found is None or found >= later:
                high = middle
            elif self.seal(found).at < moment:
                low = found
            else:
                high = later = found
        return low

    def _size_after(self, size: int) -> int | None:
        return next(self.sizes(size), None)


def last_seal(lines: Sequence[bytes], size: int) -> SealEntry:
    """Return the last of a log's last lines, of ``size`` in all.

    Raises:
        CorruptArtifact: it is not the end of a seal.
    """
    entry = _parsed(lines[-1], size - 1, size)
    if not isinstance(entry, SealEntry):
        raise CorruptArtifact(
            _bundle(size - 1, size), f"entry {size - 1} ends no seal, but a checkpoint says so"
        )
    return entry


def last_adopted(lines: Sequence[bytes], size: int) -> str | None:
    """Return the key before the last of a log's last lines, if it was adopted; raises as ``last_seal``."""
    record = _parsed(lines[-2], size - 2, size) if len(lines) > 1 else None
    return record.key if isinstance(record, RecordEntry) and record.found == "adopted" else None


def _parsed(line: bytes, index: int, size: int) -> Entry:
    try:
        return parse_entry(line)
    except EntryInvalid as error:
        raise CorruptArtifact(_bundle(index, size), f"entry {index} is {error}") from None


def _bundle(index: int, size: int) -> str:
    return Tile(None, index // WIDTH, width_at(None, index // WIDTH, size)).path
