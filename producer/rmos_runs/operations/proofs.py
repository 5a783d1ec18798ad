"""Proofs of records: each that a file lies in the store's audit log, as it was when it was sealed.

A record is proven against the first checkpoint that holds it, so its proof is the same bytes whenever it is
made. Against the newest one it also shows what witnesses have signed since.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rmos_runs.operations.audit_log import audit_log_of, cosigned_note
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.entry import EntryInvalid, RecordEntry, parse_entry
from rmos_shared.auditlog.layout import TILES
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.moment import earliest, time_in
from rmos_shared.auditlog.note import Note
from rmos_shared.auditlog.proof import SUFFIX, InclusionProof
from rmos_shared.auditlog.tiles import WIDTH, HashReader, Tile, read_bundle, width_at
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore

#: Where the proofs of a pack lie in it.
DIRECTORY = "proof/"
#: Before every log.
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of the store: its key, and the SHA-256 of the bytes that are at hand."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof of one file."""

    stored: Stored
    proof: InclusionProof
    checkpoint: Checkpoint

    def to_bytes(self) -> bytes:
        """Return it as a file."""
        return self.proof.to_bytes()


@dataclass
class LogSummary:
    """What one must know to check proofs: the largest checkpoint among them, and whose it is."""

    checkpoint: Checkpoint | None = None
    #: Of its signatures by the log: as the public keys begin, ``name+12345678+...``.
    keys: tuple[str, ...] = ()
    proofs: int = 0

    def add(self, proof: Proof) -> None:
        """Take a proof into account."""
        self.proofs += 1
        if self.checkpoint is None or proof.checkpoint.size > self.checkpoint.size:
            self.checkpoint = proof.checkpoint
            self.keys = log_keys(proof.checkpoint, proof.proof.note)

    def text(self, file: str, proof: str) -> str:
        """Return what to do with the proofs of a pack, of which ``proof`` is that of ``file``."""
        if self.checkpoint is None:
            return "None of these files is in an audit log yet, so nothing is proven of them.\n"
        root = base64.b64encode(self.checkpoint.root).decode()
        keys = "".join(f"  key         {key}\n" for key in self.keys) or (
            "  key         none: this log is not signed, so anybody could have made it\n"
        )
        return f"""\
A proof shows that a file was in the audit log of the store that it came from, with the bytes that it has
here, when the log was signed. Each is a text file after c2sp.org/tlog-proof. The newest checkpoint in them:

  log         {self.checkpoint.origin}
  checkpoint  {self.checkpoint.size} entries, root {root}
{keys}
KEY below is the log's public key, which begins as above. Whoever made this pack could have made it with a
key of their own: get the key from the log's owner by another way, and from somebody who had it before
there was a question. Then, with rmos installed, or with the one file that `rmos audit script` prints:

  rmos audit check {proof} {file} --key KEY
  python3 -I verifier.py check {proof} {file} --key KEY
"""


def log_keys(checkpoint: Checkpoint, note: Note) -> tuple[str, ...]:
    """Return how the public keys begin by which a log has signed a checkpoint."""
    return tuple(
        f"{line.name}+{line.key_id.hex()}+..." for line in note.signatures if line.name == checkpoint.origin
    )


class Prover:
    """Proves files of one store. Not for several threads at once.

    All methods raise ``StoreUnavailable`` when the store is away, and ``CorruptArtifact`` for a part of the
    log that is damaged.
    """

    def __init__(self, store: ArtifactStore, *, newest: bool = False) -> None:
        """Read ``store``; prove against its newest checkpoint, with cosignatures, if ``newest``."""
        self._store = store
        self._newest = newest
        self._log = audit_log_of(store)
        self._size = 0 if self._log is None else self._log.newest_size()
        #: The tree and the bundle that were read last: proofs come in the order of the log.
        self._tree: tuple[int, Checkpoint, Note, HashReader] | None = None
        #: No checkpoint lies between this index and that tree.
        self._tree_start = 0
        self._bundle: tuple[Tile, list[bytes]] | None = None

    @property
    def has_log(self) -> bool:
        """Whether anything is sealed at all."""
        return self._log is not None

    def find(self, keys: Mapping[str, object]) -> list[tuple[int, str]]:
        """Return where in the log those of ``keys`` are that it holds, in its order.

        One pass over the log finds all, from the earliest of them on. Attachments whose own time does not
        tell when they came cost another one.
        """
        if self._log is None or not keys:
            return []
        found = self._log.find({key: self._earliest(key) for key in keys}, size=self._size)
        timeless = {key: _LONG_AGO for key in keys if key not in found and time_in(key) is None}
        # A copy that was put back may have a later time than its entry, and its name tells none.
        found |= self._log.find(timeless, size=self._size)
        return sorted((index, key) for key, index in found.items())

    def prove(self, index: int, stored: Stored) -> Proof:
        """Return the proof of the file that entry ``index`` tells of.

        Raises:
            CorruptArtifact: the entry tells of other bytes: the file was changed since it was sealed.
        """
        log = self._log
        if log is None:
            raise ValueError("nothing is sealed")
        size, checkpoint, note, reader = self._tree_of(log, index)
        line = self._entry(index, size)
        try:
            entry = parse_entry(line)
        except EntryInvalid as error:
            raise CorruptArtifact(f"{TILES}entries", f"entry {index} is {error}") from error
        if not isinstance(entry, RecordEntry) or (entry.key, entry.sha256) != (stored.key, stored.sha256):
            raise CorruptArtifact(
                stored.key, f"it has another content than entry {index} of the audit log tells"
            )
        path = tuple(reader.inclusion_proof(index))
        return Proof(stored, InclusionProof(line, index, path, note), checkpoint)

    def _tree_of(self, log: AuditLog, index: int) -> tuple[int, Checkpoint, Note, HashReader]:
        if self._newest:
            size = self._size
        elif self._tree is not None and self._tree[0] > index >= self._tree_start:
            size = self._tree[0]
        else:
            size = next(log.sizes(index), 0)
            self._tree_start = index
        if self._tree is None or self._tree[0] != size:
            checkpoint, note = log.note(size)
            if self._newest:
                note = cosigned_note(self._store, checkpoint, note)
            self._tree = size, checkpoint, note, log.hash_reader(size)
        return self._tree

    def _entry(self, index: int, size: int) -> bytes:
        place = index // WIDTH
        tile = Tile(None, place, width_at(None, place, size))
        if self._bundle is None or self._bundle[0] != tile:
            self._bundle = tile, read_bundle(self._store.get, tile)
        return self._bundle[1][index % WIDTH]

    def _earliest(self, key: str) -> datetime:
        head = self._store.head(key)
        return earliest(key, None if head is None else head.modified_at, _LONG_AGO)


class Proofs:
    """The proofs of many files, found in one pass over the log; names are those of a pack."""

    def __init__(self, store: ArtifactStore) -> None:
        """Read ``store``."""
        self._prover = Prover(store)
        self._named: dict[str, list[tuple[str, str]]] = {}
        self.summary = LogSummary()
        #: Names of files that no seal holds yet; complete once the proofs are through.
        self.unsealed: list[str] = []

    def want(self, name: str, stored: Stored) -> None:
        """Ask for the proof of a file."""
        self._named.setdefault(stored.key, []).append((name, stored.sha256))

    def made(self, on_damage: Callable[[CorruptArtifact], None]) -> Iterator[tuple[str, bytes]]:
        """Yield each file's name and proof, in the log's order; one that is not what was sealed is reported.

        Raises:
            CorruptArtifact: the log itself is damaged.
            StoreUnavailable: the store went away.
        """
        for index, key in self._prover.find(self._named):
            for name, sha256 in self._named.pop(key):
                try:
                    proof = self._prover.prove(index, Stored(key, sha256))
                except CorruptArtifact as error:
                    on_damage(error)
                    continue
                self.summary.add(proof)
                yield name, proof.to_bytes()
        if self._prover.has_log:
            self.unsealed = sorted(name for named in self._named.values() for name, _ in named)


def proof_name(name: str) -> str:
    """Return where the proof of a pack's file lies in the pack."""
    return f"{DIRECTORY}{name}{SUFFIX}"
