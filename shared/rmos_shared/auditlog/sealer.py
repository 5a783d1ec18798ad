"""Adds to the audit log. One file decides what comes next; all else follows from it.

A seal goes on from the newest checkpoint, of ``N`` entries. Whoever creates ``_log/seals/N`` first has
decided what the next entries are. Tiles and the checkpoint are pure functions of the log before them and of
that file, so any number of sealers, killed anywhere, write the same bytes: there is no fork to be prevented,
and a lock would only save work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import (
    EntryInvalid,
    Found,
    RecordEntry,
    SealEntry,
    SealFacts,
    parse_entry,
    to_milliseconds,
)
from rmos_shared.auditlog.layout import checkpoint_key, seal_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.merkle import complete_root, leaf_hash, verify_inclusion
from rmos_shared.auditlog.moment import earliest
from rmos_shared.auditlog.note import Note, NoteInvalid, Signer, verified
from rmos_shared.auditlog.tiles import (
    WIDTH,
    Edge,
    Tile,
    edge_of,
    edge_root,
    extend,
    read_edge,
    read_tile,
)
from rmos_shared.errors import CorruptArtifact, SettingsInvalid, StoreUnavailable
from rmos_shared.store.base import ArtifactStore, Outcome

#: Records of one seal.
MOST_RECORDS = 10_000
#: A file that no receipt tells of is left alone for that long: its receipt may be on the way.
LATE_AFTER = timedelta(seconds=120)
#: A receipt that comes this soon after its file cannot be of one that was sealed as late. Half of
#: ``LATE_AFTER``, for clocks of file servers.
_PROMPT = timedelta(seconds=60)
#: Sealers that may come first, one after the other, before this one gives up.
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Receipt:
    """Tells that a file was published."""

    key: str
    #: Of its bytes, 64 lower-case hex digits.
    sha256: str
    size: int
    #: When the ledger took the receipt, by its own clock; when the file was found, where there was no
    #: receipt.
    at: datetime
    #: Its place in the ledger's feed, ``milliseconds-number``; "" for what was found.
    feed_id: str = ""
    #: False: the very same bytes were there already, so the log may have it.
    created: bool = True
    #: On the act that introduces a new signing key: that key (a vkey).
    trusts: str | None = None
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was added to the log."""

    #: Size of the tree before.
    start: int
    checkpoint: Checkpoint
    #: The checkpoint as it is stored.
    note: Note
    seal: SealEntry
    #: Whether receipts were left for the next seal, which may come at once.
    more: bool = False

    @property
    def size(self) -> int:
        """Size of the tree now."""
        return self.checkpoint.size


@dataclass(frozen=True, slots=True)
class _Head:
    """The newest checkpoint, and the edge of the tree that goes on from it; proven against each other."""

    edge: Edge
    note: Note | None
    seal: SealEntry | None

    @property
    def size(self) -> int:
        return self.edge.size


@dataclass(frozen=True, slots=True)
class _Gathered:
    entries: list[RecordEntry]
    #: Of the last receipt that was looked at, whether or not it became an entry.
    feed: str
    last_at: datetime | None
    more: bool


class Sealer:
    """Seals receipts into the log of ``origin``. Any number may work on one store at once.

    All methods raise ``StoreUnavailable``, after which the same call is safe; ``CorruptArtifact`` where the
    log is not what its newest checkpoint says, for then it must not be continued; and ``SettingsInvalid``
    where the key is not the one that the log trusts.
    """

    def __init__(
        self, store: ArtifactStore, origin: str, signer: Signer | None, *, heartbeat: timedelta
    ) -> None:
        """Sign with ``signer``, or not at all; promise a checkpoint at least every ``heartbeat``."""
        self.log = AuditLog(store, origin)
        self._store = store
        self._signer = signer
        self._heartbeat = heartbeat
        #: Size of the newest checkpoint that is known to be durable, not only visible.
        self._durable = 0

    def complete(self, *, since: Checkpoint | None = None) -> Sealed | None:
        """Finish the seal that another sealer has begun, if there is one.

        ``since`` is a checkpoint that is known of this log: what does not continue it is not continued.
        """
        head = self._head(since)
        begun = self._store.get(seal_key(head.size))
        return None if begun is None else self._finish(head, begun)

    def seal(
        self,
        receipts: Sequence[Receipt],
        *,
        now: datetime,
        feed_at_end: bool,
        since: Checkpoint | None = None,
    ) -> Sealed | None:
        """Seal receipts, those of the feed first and in its order; return None where nothing is to be sealed.

        ``now`` is the ledger's time at which it was asked for them, in one step; ``feed_at_end`` says that it
        had no more. What the log holds already is left out. Without anything new there is a seal only when
        the last one promised it by now. ``since`` as in ``complete``.

        Raises:
            ValueError: files without a receipt are given while receipts may be waiting, which may be theirs.
        """
        if not feed_at_end and any(receipt.found for receipt in receipts):
            raise ValueError("what was found is sealed only when the feed has been read to its end")
        for _ in range(_ATTEMPTS):
            head = self._head(since)
            key = seal_key(head.size)
            begun = self._store.get(key)
            if begun is not None:
                self._finish(head, begun)
                continue
            gathered = self._gather(head, receipts, now)
            if not self._is_due(head, gathered, now):
                return None
            lines = self._lines(head, gathered, now, feed_at_end=feed_at_end)
            data = b"".join(line + b"\n" for line in lines)
            if self._store.create(key, data) is not Outcome.CONFLICT:
                return self._finish(head, data, more=gathered.more)
        raise StoreUnavailable("other sealers of the audit log came first each time; repeat")

    # -- where the log ends ---------------------------------------------------------------------------

    def _head(self, since: Checkpoint | None) -> _Head:
        size = self.log.newest_size()
        if since is not None and (since.origin != self.log.origin or since.size > size):
            raise CorruptArtifact(
                checkpoint_key(since.size),
                "a checkpoint is known that the audit log no longer has: it was rolled back",
            )
        if not size:
            return _Head(Edge(0, (), ()), None, None)
        checkpoint, note = self.log.note(size)
        edge = read_edge(self._store.get, size)
        if edge_root(edge) != checkpoint.root:
            raise self._unlike(edge)
        reader = self.log.hash_reader(size)
        seal = self.log.seal(size)
        leaf = leaf_hash(seal.to_line())
        if not verify_inclusion(leaf, size - 1, size, reader.inclusion_proof(size - 1), checkpoint.root):
            raise CorruptArtifact(checkpoint_key(size), "the last entry of the audit log is not in its tree")
        if since is not None and reader.root(since.size) != since.root:
            raise CorruptArtifact(
                checkpoint_key(since.size), "the audit log does not continue a checkpoint that is known of it"
            )
        self._check_key(checkpoint, note)
        if self._durable != size:
            # Its writer may have been killed before it was durable, and what follows must not outlive it.
            self._store.create(checkpoint_key(size), note.to_bytes())
            self._durable = size
        return _Head(edge, note, seal)

    def _unlike(self, edge: Edge) -> CorruptArtifact:
        """Return which file is most likely the wrong one, where root and tiles of a tree do not agree."""
        for level, hashes in enumerate(edge.levels):
            first = (edge.size >> 8 * level) // WIDTH * WIDTH
            for place, stated in enumerate(hashes if level else ()):
                below = Tile(level - 1, first + place)
                if complete_root(read_tile(self._store.get, below)) != stated:
                    tile = Tile(level, first // WIDTH, len(hashes))
                    return CorruptArtifact(
                        tile.path, f"it does not agree with {below.path}; one of them was changed"
                    )
        tiles = ", ".join(tile.path for tile in edge_of(edge.size))
        return CorruptArtifact(checkpoint_key(edge.size), f"its root is not that of the tree in {tiles}")

    def _check_key(self, checkpoint: Checkpoint, note: Note) -> None:
        """Refuse a key that the log does not trust, for what it signed could never be made good."""
        if self._signer is None:
            if note.signatures:
                raise SettingsInvalid(
                    "RMOS_AUDIT_KEY_FILE names no key, but the audit log is signed; give its key"
                )
            return
        verifier = self._signer.verifier
        if any(map(verifier.is_of, note.signatures)):
            try:
                verified(note, [verifier])
            except NoteInvalid as error:
                raise CorruptArtifact(checkpoint_key(checkpoint.size), str(error)) from None
        elif note.signatures and self._last_trusted(checkpoint.size) != verifier.vkey:
            raise SettingsInvalid(
                f"RMOS_AUDIT_KEY_FILE names the key {verifier.vkey}, which the audit log does not trust; "
                f"give the key that signed checkpoint {checkpoint.size}, and introduce the new one under it"
            )

    def _last_trusted(self, size: int) -> str | None:
        """Return the key that was introduced last. Reads all entries: for a new key's first seal only."""
        trusted = None
        for line in self.log.entries(size=size):
            if b'"trusts":' in line:
                entry = _parsed(line, "an entry of the audit log")
                trusted = entry.trusts if isinstance(entry, RecordEntry) else trusted
        return trusted

    # -- what comes next ------------------------------------------------------------------------------

    def _gather(self, head: _Head, receipts: Sequence[Receipt], now: datetime) -> _Gathered:
        taken = _place(head.seal.seal.feed) if head.seal else (0, 0)
        fresh = [receipt for receipt in receipts if receipt.feed_id and _place(receipt.feed_id) > taken]
        # Those of the feed first: of a file that is told of by both, the receipt is right.
        fresh += [receipt for receipt in receipts if not receipt.feed_id]
        looked_at, more = fresh[:MOST_RECORDS], len(fresh) > MOST_RECORDS
        by_key: dict[str, Receipt] = {}
        for receipt in looked_at:
            by_key.setdefault(receipt.key, receipt)
        known = self._known(by_key.values(), head.size, now)
        entries = [
            RecordEntry(
                at=receipt.at,
                key=receipt.key,
                sha256=receipt.sha256,
                size=receipt.size,
                found=receipt.found,
                trusts=receipt.trusts,
            )
            for receipt in by_key.values()
            if receipt.key not in known
        ]
        of_feed = [receipt for receipt in looked_at if receipt.feed_id]
        feed = of_feed[-1].feed_id if of_feed else head.seal.seal.feed if head.seal else ""
        return _Gathered(entries, feed, of_feed[-1].at if of_feed else None, more)

    def _known(self, receipts: Iterable[Receipt], size: int, now: datetime) -> set[str]:
        """Return the keys that become no entries: the log has them, or it is too soon to call them late."""
        search: dict[str, datetime] = {}
        too_soon: set[str] = set()
        for receipt in receipts:
            modified_at = self._modified_at(receipt.key)
            if receipt.found and modified_at is not None and now - modified_at < LATE_AFTER:
                too_soon.add(receipt.key)
            elif (
                receipt.found
                or not receipt.created
                or modified_at is None
                or receipt.at - modified_at > _PROMPT
            ):
                search[receipt.key] = earliest(receipt.key, modified_at, receipt.at)
        return too_soon | set(self.log.find(search, size=size))

    def _modified_at(self, key: str) -> datetime | None:
        try:
            head = self._store.head(key)
        except CorruptArtifact:
            return None  # the verifier tells of it; what the receipt says is sealed all the same
        return None if head is None else head.modified_at

    def _is_due(self, head: _Head, gathered: _Gathered, now: datetime) -> bool:
        if head.seal is None or gathered.entries or gathered.feed != head.seal.seal.feed:
            return True
        return to_milliseconds(now) >= head.seal.seal.next

    def _lines(self, head: _Head, gathered: _Gathered, now: datetime, *, feed_at_end: bool) -> list[bytes]:
        at = now if head.seal is None else max(now, head.seal.at)
        upto = at if feed_at_end and not gathered.more else gathered.last_at or at
        if head.seal is not None:
            upto = max(upto, head.seal.seal.upto)
        seal = SealEntry(
            at=at,
            seal=SealFacts(
                entries=len(gathered.entries) + 1, feed=gathered.feed, next=at + self._heartbeat, upto=upto
            ),
        )
        return [*(entry.to_line() for entry in gathered.entries), seal.to_line()]

    # -- what follows ---------------------------------------------------------------------------------

    def _finish(self, head: _Head, data: bytes, *, more: bool = False) -> Sealed:
        """Write all that follows from a seal; what is there already must be the same."""
        key = seal_key(head.size)
        lines, seal = read_seal(key, data)
        # Once more: another's may be visible and not durable yet, and must not be outlived by its checkpoint.
        self._create(key, data)
        edge, files = extend(head.edge, lines)
        for (name, _), outcome in zip(files, self._store.create_many(files), strict=True):
            if outcome is Outcome.CONFLICT:
                raise CorruptArtifact(name, f"it is not what follows from {key}")
        checkpoint = Checkpoint(self.log.origin, edge.size, edge_root(edge))
        note = Note(checkpoint.text)
        if self._signer is not None:
            note = note.signed(self._signer.sign(note.text))
        key = checkpoint_key(edge.size)
        if self._store.create(key, note.to_bytes()) is Outcome.CONFLICT:
            # Another key over the same text: keys are changed while sealers run.
            theirs, note = self.log.note(edge.size)
            if theirs != checkpoint:
                raise CorruptArtifact(key, f"it is not what follows from {seal_key(head.size)}")
        self._durable = edge.size
        return Sealed(head.size, checkpoint, note, seal, more)

    def _create(self, key: str, data: bytes) -> None:
        if self._store.create(key, data) is Outcome.CONFLICT:
            raise CorruptArtifact(key, "it changed while it was read")


def read_seal(key: str, data: bytes) -> tuple[list[bytes], SealEntry]:
    """Return the lines of a seal, and the last of them.

    Raises:
        CorruptArtifact: it is no seal.
    """
    lines = data.split(b"\n")
    if lines.pop() != b"" or not lines:
        raise CorruptArtifact(key, "this seal of the audit log does not end with a line")
    *records, last = [_parsed(line, key) for line in lines]
    if not isinstance(last, SealEntry) or last.seal.entries != len(lines):
        raise CorruptArtifact(key, f"its last line does not end a seal of {len(lines)} entries")
    if not all(isinstance(record, RecordEntry) for record in records):
        raise CorruptArtifact(key, "it holds the end of another seal")
    return lines, last


def _parsed(line: bytes, key: str) -> RecordEntry | SealEntry:
    try:
        return parse_entry(line)
    except EntryInvalid as error:
        raise CorruptArtifact(key, f"a line is {error}") from None


def _place(feed_id: str) -> tuple[int, int]:
    """Return a place in the feed as numbers: as text, 10-0 sorts before 9-0."""
    milliseconds, _, number = feed_id.partition("-")
    return int(milliseconds or 0), int(number or 0)
