"""Adds to the audit log. One file decides what comes next; all else follows from it.

A seal goes on from the newest checkpoint, of ``N`` entries. Whoever creates ``_log/seals/N`` first, with the
log's key, has decided what the next entries are. Tiles and the checkpoint are pure functions of the log
before them and of that file, so any number of sealers, killed anywhere, write the same bytes: there is no
fork to be prevented, and a lock would only save work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from rmos_shared.auditlog.adoption import adopt
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import RecordEntry, SealEntry, SealFacts, to_milliseconds
from rmos_shared.auditlog.layout import checkpoint_key, seal_key
from rmos_shared.auditlog.log import SLACK, AuditLog, last_adopted, last_seal
from rmos_shared.auditlog.merkle import complete_root, leaf_hash, verify_inclusion
from rmos_shared.auditlog.moment import earliest
from rmos_shared.auditlog.note import Note, NoteInvalid, Signer, verified
from rmos_shared.auditlog.receipt import LATE_AFTER, Receipt
from rmos_shared.auditlog.seal_file import SealFile
from rmos_shared.auditlog.tiles import WIDTH, Edge, Tile, edge_of, edge_root, extend, read_edge, read_tile
from rmos_shared.errors import CorruptArtifact, SettingsInvalid, StoreUnavailable
from rmos_shared.store.base import ArtifactStore, Outcome

#: Records of one seal.
MOST_RECORDS = 10_000
#: Before anything that may be searched for.
_ALWAYS = datetime(1970, 1, 2, tzinfo=UTC)
#: What its receipt calls created is searched for from that long before the receipt on: another job may have
#: found it there, told of it and been sealed meanwhile.
_JUST_NOW = timedelta(minutes=2)
#: Sealers that may come first, one after the other, before this one gives up.
_ATTEMPTS = 100


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
    """Where the log ends: the right edge of its tree, held against the newest checkpoint, and its seal."""

    edge: Edge
    seal: SealEntry | None
    #: The last key that this seal adopted of what was there before the log; "" where the log begins; None
    #: where all was adopted before.
    adopted: str | None

    @property
    def size(self) -> int:
        return self.edge.size

    @property
    def feed(self) -> str:
        return self.seal.seal.feed if self.seal else ""


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What the next seal is to hold."""

    lines: list[bytes]
    #: Of the last receipt that was looked at, whether or not it became an entry.
    feed: str
    #: When the ledger took that receipt.
    last_at: datetime | None
    #: The latest time of an entry; None without any.
    latest_at: datetime | None
    more: bool


class Sealer:
    """Seals receipts into the log of ``origin``. Any number may work on one store at once.

    The first seals of a log adopt what lay in the store before it.

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
        return None if begun is None else self._take(head, begun)

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
            ValueError: files without a receipt are given while receipts may be waiting, which may be theirs;
                or a receipt is none that the log can hold.
        """
        if not feed_at_end and any(receipt.found for receipt in receipts):
            raise ValueError("what was found is sealed only when the feed has been read to its end")
        for _ in range(_ATTEMPTS):
            head = self._head(since)
            key = seal_key(head.size)
            begun = self._store.get(key)
            if begun is not None:
                self._take(head, begun)
                continue
            gathered = self._gather(head, receipts, now)
            if not _is_due(head, gathered, now):
                return None
            seal = _seal_entry(head, gathered, now, self._heartbeat, feed_at_end=feed_at_end)
            lines = [*gathered.lines, seal.to_line()]
            made = SealFile.made(self.log.origin, head.size, lines, seal, self._signer)
            if self._store.create(key, made.to_bytes()) is not Outcome.CONFLICT:
                return self._finish(head, made, more=gathered.more)
        raise StoreUnavailable("other sealers of the audit log came first each time; repeat")

    # -- where the log ends ---------------------------------------------------------------------------

    def _head(self, since: Checkpoint | None) -> _Head:
        size = self.log.newest_size()
        if since is not None and (since.origin != self.log.origin or since.size > size):
            raise CorruptArtifact(
                checkpoint_key(since.size),
                "this checkpoint is known, and the audit log no longer has it: the log was rolled back; if a "
                "backup was restored, `rmos audit seal --accept-restored --why TEXT` goes on",
            )
        if not size:
            return _Head(Edge(0, (), ()), None, "")
        checkpoint, note = self.log.note(size)
        edge = read_edge(self._store.get, size)
        if edge_root(edge) != checkpoint.root:
            raise self._unlike(edge, checkpoint.root)
        lines = self._last_lines(edge, checkpoint)
        if since is not None and self._root_at(since.size, checkpoint) != since.root:
            raise CorruptArtifact(
                checkpoint_key(since.size), "the audit log does not continue a checkpoint that is known of it"
            )
        self._check_key(size, note)
        if self._durable != size:
            # Its writer may have been killed before it was durable, and what follows must not outlive it.
            self._store.create(checkpoint_key(size), note.to_bytes())
            self._durable = size
        return _Head(edge, last_seal(lines, size), last_adopted(lines, size))

    def _last_lines(self, edge: Edge, checkpoint: Checkpoint) -> list[bytes]:
        """Return the last two entries, which tell of the last seal; prove them and those at the edge."""
        if edge.entries and _leaves(edge) != edge.levels[0]:
            bundle = Tile(None, edge.size // WIDTH, edge.size % WIDTH)
            raise CorruptArtifact(bundle.path, "its entries are not those of the tree of the checkpoint")
        first = max(0, edge.size - 2)
        before = edge.size - len(edge.entries)
        if first >= before:
            return list(edge.entries[first - before :])
        # One or both lie in a full bundle, of which the edge says nothing.
        lines = list(self.log.entries(first, edge.size, size=edge.size))
        reader = self.log.hash_reader(edge.size)
        for index, line in enumerate(lines, first):
            proof = reader.inclusion_proof(index)
            if not verify_inclusion(leaf_hash(line), index, edge.size, proof, checkpoint.root):
                bundle = Tile(None, index // WIDTH)
                raise CorruptArtifact(
                    bundle.path, f"entry {index} is not that of the tree of {edge.size} entries"
                )
        return lines

    def _root_at(self, size: int, checkpoint: Checkpoint) -> bytes:
        if size == checkpoint.size:
            return checkpoint.root
        return self.log.hash_reader(checkpoint.size).root(size)

    def _unlike(self, edge: Edge, root: bytes) -> CorruptArtifact:
        """Return which file is most likely the wrong one, where root and tiles of a tree do not agree."""
        if edge.entries and edge_root(replace(edge, levels=(_leaves(edge), *edge.levels[1:]))) == root:
            tile = Tile(0, edge.size // WIDTH, edge.size % WIDTH)
            return CorruptArtifact(tile.path, "its hashes are not those of its entries")
        for level, hashes in enumerate(edge.levels[1:], 1):
            index = (edge.size >> 8 * level) // WIDTH
            for place, stated in enumerate(hashes):
                below = Tile(level - 1, index * WIDTH + place)
                if complete_root(read_tile(self._store.get, below)) != stated:
                    tile = Tile(level, index, len(hashes))
                    return CorruptArtifact(tile.path, f"it and {below.path} do not agree; one was changed")
        tiles = ", ".join(tile.path for tile in edge_of(edge.size))
        return CorruptArtifact(checkpoint_key(edge.size), f"its root is not that of the tree in {tiles}")

    def _check_key(self, size: int, note: Note) -> None:
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
                raise CorruptArtifact(checkpoint_key(size), str(error)) from None
        elif note.signatures and self._last_trusted(size) != verifier.vkey:
            raise SettingsInvalid(
                f"RMOS_AUDIT_KEY_FILE names the key {verifier.vkey}, which the audit log does not trust; "
                f"give the key that signed checkpoint {size}; `rmos audit rotate` introduces a new one"
            )

    def _last_trusted(self, size: int) -> str | None:
        """Return the key that was introduced last. Reads all entries: for a new key's first seal only."""
        trusted = None
        for index, line in enumerate(self.log.entries(size=size)):
            if b'"trusts":' in line:
                entry = self.log.entry(index, size)
                trusted = entry.trusts if isinstance(entry, RecordEntry) else trusted
        return trusted

    # -- what comes next ------------------------------------------------------------------------------

    def _gather(self, head: _Head, receipts: Sequence[Receipt], now: datetime) -> _Gathered:
        fresh = self._fresh(head, receipts)
        of_feed = _whole_places(fresh, MOST_RECORDS)
        # Until adoption has come by nothing is late. Those of the feed come first: their receipts are right
        # about a file that both tell of.
        found = [receipt for receipt in receipts if not receipt.feed_id] if head.adopted is None else []
        looked_at = [*of_feed, *found]
        more = max(len(fresh), len(looked_at)) > MOST_RECORDS
        by_key: dict[str, Receipt] = {}
        for receipt in looked_at[: max(MOST_RECORDS, len(of_feed))]:
            by_key.setdefault(receipt.key, receipt)
        left_out = self._left_out(by_key.values(), head.size, now)
        taken = [receipt for key, receipt in by_key.items() if key not in left_out]
        if head.adopted is not None:
            adopted = self._adopted(head.adopted, head.size, now, by_key, MOST_RECORDS - len(taken))
            taken += adopted
            more = more or bool(adopted)
        # The last seal speaks for all that was told of before a time, which the ledger's clock may have left
        # behind it since.
        taken = [receipt.no_earlier(head.seal.seal.upto) if head.seal else receipt for receipt in taken]
        last = of_feed[-1] if of_feed else None
        return _Gathered(
            [receipt.to_line() for receipt in taken],
            max(head.feed, last.feed_id, key=_place) if last else head.feed,
            last.at if last else None,
            max((receipt.at for receipt in taken), default=None),
            more,
        )

    def _fresh(self, head: _Head, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Return those of the feed that no seal has taken: all behind the place of the last one.

        One that lies before it was sealed and is read again, as after a crash; or the ledger was lost, and
        the clock of the new one is behind. The log tells which.
        """
        taken = _place(head.feed)
        of_feed = [(_place(receipt.feed_id), receipt) for receipt in receipts if receipt.feed_id]
        before = {receipt.key: receipt.at for place, receipt in of_feed if place <= taken}
        known = self.log.find(before, size=head.size)
        return [receipt for place, receipt in of_feed if place > taken or receipt.key not in known]

    def _adopted(
        self, after: str, size: int, now: datetime, taken: Mapping[str, Receipt], most: int
    ) -> list[Receipt]:
        """Return receipts of what lay in the store before the log; none only where there is no more."""
        # As its first seal will say: what that adopts, later seals must know as adopted.
        before = self.log.begun_at() or to_milliseconds(now)
        while chunk := list(adopt(self._store, after, now, max(1, most), before=before)):
            # Receipts may have told of some of it already.
            known = self.log.find_since({receipt.key: _ALWAYS for receipt in chunk}, size=size)
            if new := [receipt for receipt in chunk if receipt.key not in known and receipt.key not in taken]:
                return new
            after = chunk[-1].key
        return []

    def _left_out(self, receipts: Iterable[Receipt], size: int, now: datetime) -> set[str]:
        """Return the keys that become no entries: the log has them, or it is too soon to call them late."""
        adopted_until = self.log.adopted_until()
        begun_at = self.log.begun_at() if adopted_until else None
        search: dict[str, datetime] = {}
        created: dict[str, datetime] = {}
        too_soon: set[str] = set()
        for receipt in receipts:
            # Only adoption takes files so young that their receipts may be on the way.
            after_adoption = adopted_until is None or receipt.at - adopted_until > LATE_AFTER
            is_new = receipt.created and not receipt.found
            if is_new and after_adoption:
                created[receipt.key] = receipt.at - _JUST_NOW
                continue
            modified_at = self._modified_at(receipt.key)
            if is_new and modified_at is not None and begun_at is not None and modified_at >= begun_at:
                created[receipt.key] = receipt.at - _JUST_NOW
                continue
            # A time that lies ahead by more than clocks differ says nothing.
            age = None if modified_at is None else now - modified_at
            if receipt.found == "late" and age is not None and -SLACK <= age < LATE_AFTER:
                too_soon.add(receipt.key)
            else:
                search[receipt.key] = earliest(receipt.key, modified_at, receipt.at)
        known = self.log.find_since(created, size=size) | self.log.find(search, size=size)
        return too_soon | known.keys()

    def _modified_at(self, key: str) -> datetime | None:
        try:
            head = self._store.head(key)
        except CorruptArtifact:
            return None  # the verifier tells of it; what the receipt says is sealed all the same
        return None if head is None else head.modified_at

    # -- what follows ---------------------------------------------------------------------------------

    def _take(self, head: _Head, data: bytes) -> Sealed:
        """Finish a seal that another sealer has begun."""
        begun = SealFile.parse(self.log.origin, head.size, data)
        # What is finished here is vouched for, and may name keys to be trusted.
        begun.check(self._signer)
        # Once more: it may be visible and not durable yet, and its checkpoint must not outlive it.
        if self._store.create(begun.key, data) is Outcome.CONFLICT:
            raise CorruptArtifact(begun.key, "it changed while it was read")
        return self._finish(head, begun)

    def _finish(self, head: _Head, begun: SealFile, *, more: bool = False) -> Sealed:
        """Write all that follows from a seal; what is there already must be the same."""
        edge, files = extend(head.edge, begun.lines)
        for (key, _), outcome in zip(files, self._store.create_many(files), strict=True):
            if outcome is Outcome.CONFLICT:
                raise CorruptArtifact(key, f"it is not what follows from {begun.key}")
        checkpoint = Checkpoint(self.log.origin, edge.size, edge_root(edge))
        note = Note(checkpoint.text)
        if self._signer is not None:
            note = note.signed(self._signer.sign(note.text))
        key = checkpoint_key(edge.size)
        if self._store.create(key, note.to_bytes()) is Outcome.CONFLICT:
            raise CorruptArtifact(key, f"it is not what follows from {begun.key}")
        self._durable = edge.size
        self.log.grown(head.size, begun.lines, checkpoint)
        return Sealed(head.size, checkpoint, note, begun.seal, more)


def _leaves(edge: Edge) -> tuple[bytes, ...]:
    return tuple(map(leaf_hash, edge.entries))


def _is_due(head: _Head, gathered: _Gathered, now: datetime) -> bool:
    """Say whether there must be a seal: the first, a new one, the one that ends adoption, or one promised."""
    if head.seal is None or gathered.lines or gathered.feed != head.feed or head.adopted is not None:
        return True
    return to_milliseconds(now) >= head.seal.seal.next


def _whole_places(receipts: Sequence[Receipt], most: int) -> Sequence[Receipt]:
    """Return the first receipts of the feed, about ``most``: several of one place in it are not parted."""
    end = min(most, len(receipts))
    while 0 < end < len(receipts) and receipts[end].feed_id == receipts[end - 1].feed_id:
        end += 1
    return receipts[:end]


def _seal_entry(
    head: _Head, gathered: _Gathered, now: datetime, heartbeat: timedelta, *, feed_at_end: bool
) -> SealEntry:
    # Times of seals never step back, for they are searched; the ledger's clock may.
    at = max(now, gathered.latest_at or now, head.seal.at if head.seal else now)
    if feed_at_end and not gathered.more:
        # Not ``at``: what came since the feed was read is not in it.
        upto = now
    else:
        upto = gathered.last_at or (head.seal.seal.upto if head.seal else now)
    if head.seal is not None:
        upto = max(upto, head.seal.seal.upto)
    facts = SealFacts(entries=len(gathered.lines) + 1, feed=gathered.feed, next=at + heartbeat, upto=upto)
    return SealEntry(at=at, seal=facts)


def _place(feed_id: str) -> tuple[int, int]:
    """Return a place in the feed as numbers: as text, 10-0 sorts before 9-0. "" is before them all."""
    milliseconds, _, number = feed_id.partition("-")
    return int(milliseconds or -1), int(number or -1)
