"""A witness: it signs that a log only grew, and refuses to sign one that did not.

It holds what it signed last. A new checkpoint is cosigned only when the log's own tiles prove that the tree
of the last one is the beginning of the new one's. What is cosigned is in the memory, durably, before anybody
sees the signature; so a witness that is killed at any point has forgotten nothing that it signed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rmos_runs.auditor.log_source import LogSource
from rmos_runs.auditor.witness_state import WitnessState
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.layout import cosignature_key
from rmos_shared.auditlog.merkle import verify_consistency
from rmos_shared.auditlog.note import Note, NoteInvalid, Signature, Signer, Verifier, verified
from rmos_shared.auditlog.tiles import MOST_ENTRIES, HashReader
from rmos_shared.clock import Clock
from rmos_shared.errors import CorruptArtifact, DamageFound
from rmos_shared.models.base import format_utc
from rmos_shared.store.base import ArtifactStore, Outcome


class LogForked(DamageFound):
    """The log does not continue the one that this witness signed: two histories bear one name."""

    code = "LOG_FORKED"


class LogRolledBack(DamageFound):
    """The log is shorter than the one that this witness signed, or gone."""

    code = "LOG_ROLLED_BACK"


class LogKeyUnknown(DamageFound):
    """The checkpoint is not signed by a key of the log that this witness trusts."""

    code = "LOG_KEY_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint that the witness has signed."""

    checkpoint: Checkpoint
    note: Note
    #: The witness's own line, one of the note's.
    signature: Signature
    at: datetime

    def to_bytes(self) -> bytes:
        """Return what is published: the checkpoint's text and the witness's line alone."""
        return Note(self.note.text, (self.signature,)).to_bytes()


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of one look at the log."""

    #: The newest that is cosigned; None while the log has no checkpoint.
    cosigned: Cosigned | None
    #: The one before, that it was proven to continue.
    before: Checkpoint | None
    #: Whether it was signed in this look.
    new: bool


class Witness:
    """Looks at one log, and cosigns it. Not to be shared by threads; the state must be held."""

    def __init__(
        self,
        source: LogSource,
        signer: Signer,
        state: WitnessState,
        clock: Clock,
        *,
        log_keys: Sequence[Verifier] = (),
    ) -> None:
        """Read ``source``, sign by ``signer``, a key for cosignatures.

        With ``log_keys`` only checkpoints that one of them signed are taken. Without, the witness vouches
        that the log grew, not for whose it is.
        """
        self._source = source
        self._signer = signer
        self._state = state
        self._clock = clock
        self._log_keys = log_keys

    def look(self) -> Observed:
        """Cosign the newest checkpoint, if it is a new one and continues the last.

        Raises:
            LogForked: it does not continue the last one.
            LogRolledBack: it is older than the last one, or there is none any more.
            LogKeyUnknown: none of the log's keys signed it.
            CorruptArtifact: a tile or the checkpoint is damaged, or the witness's own memory.
            StoreUnavailable: the log, or the memory, cannot be read or written now.
        """
        last = self._recall()
        data = self._source.newest()
        if data is None:
            if last is not None:
                raise LogRolledBack(
                    f"{self._source.name} has no checkpoint any more; this witness signed {_said(last)}"
                )
            return Observed(None, None, new=False)
        try:
            offered, note = Checkpoint.parse_note(data)
        except NoteInvalid as error:
            raise CorruptArtifact(f"the newest checkpoint of {self._source.name}", str(error)) from error
        if offered.size > MOST_ENTRIES:
            raise CorruptArtifact(f"the newest checkpoint of {self._source.name}", "no log has that size")
        self._check_key(note, offered)
        seen = None if last is None else last.checkpoint
        if last is not None and seen == offered:
            return Observed(last, seen, new=False)
        self._check_growth(last, offered)
        at = self._clock.now().replace(microsecond=0)
        signature = self._signer.sign(note.text, at)
        # Lines of other witnesses are theirs to hand on.
        cosigned = Cosigned(offered, self._of_log(note, offered).signed(signature), signature, at)
        self._state.remember(cosigned.note.to_bytes())
        return Observed(cosigned, seen, new=True)

    def publish(self, cosigned: Cosigned, store: ArtifactStore) -> None:
        """Put a cosignature into the log's store, where verifiers look; again, it changes nothing.

        Raises:
            CorruptArtifact: another file lies under its name.
            StoreUnavailable: it could not be written.
        """
        key_id = self._signer.verifier.key_id.hex()
        key = cosignature_key(cosigned.checkpoint.size, key_id)
        if store.create(key, cosigned.to_bytes()) is not Outcome.CONFLICT:
            return
        # Of a witness whose state was lost: the same checkpoint, signed at another time, says as much.
        other = store.get(key)
        try:
            note = Note.parse(other or b"")
            verified(note, [self._signer.verifier])
        except NoteInvalid as error:
            raise CorruptArtifact(key, "it is no cosignature of this witness") from error
        if note.text != cosigned.note.text:
            raise CorruptArtifact(key, "this witness's key has signed another checkpoint of this size")

    def _recall(self) -> Cosigned | None:
        data = self._state.recall()
        if data is None:
            return None
        name = str(self._state.file)
        try:
            checkpoint, note = Checkpoint.parse_note(data)
            (signed,) = verified(note, [self._signer.verifier])
        except (NoteInvalid, ValueError) as error:
            raise CorruptArtifact(
                name,
                "it is no checkpoint that this witness's key signed; restore it, or give the right --key",
            ) from error
        own = next(line for line in note.signatures if self._signer.verifier.is_of(line))
        assert signed.at is not None  # noqa: S101 - the key is one for cosignatures
        return Cosigned(checkpoint, note, own, signed.at)

    def _check_key(self, note: Note, offered: Checkpoint) -> None:
        if not self._log_keys:
            return
        try:
            verified(note, self._log_keys)
        except NoteInvalid as error:
            raise LogKeyUnknown(
                f"the checkpoint {_named(offered)} of {self._source.name}: {error}; if the log's key was "
                "rotated, get the new one from its owner and give it by --log-key as well"
            ) from error

    def _of_log(self, note: Note, offered: Checkpoint) -> Note:
        return Note(note.text, tuple(line for line in note.signatures if line.name == offered.origin))

    def _check_growth(self, last: Cosigned | None, offered: Checkpoint) -> None:
        reader = HashReader(self._source.get, offered.size)
        if last is None:
            if reader.root() != offered.root:
                raise CorruptArtifact(
                    f"the newest checkpoint of {self._source.name}", "its root is not that of the log's tiles"
                )
            return
        seen = last.checkpoint
        told = f"this witness signed {_said(last)}, and {self._source.name} now has {_named(offered)}"
        if offered.origin != seen.origin:
            raise LogForked(f"{told}: another log is in its place; each log needs a state of its own")
        if offered.size < seen.size:
            raise LogRolledBack(f"{told}: entries were taken away; keep both, and tell an auditor")
        proven = offered.size > seen.size and verify_consistency(
            seen.size, seen.root, offered.size, offered.root, reader.consistency_proof(seen.size)
        )
        if not proven:
            raise LogForked(f"{told}, which does not continue it; keep both, and tell an auditor")


def _named(checkpoint: Checkpoint) -> str:
    root = base64.b64encode(checkpoint.root).decode()
    return f"{checkpoint.origin} size {checkpoint.size} root {root}"


def _said(cosigned: Cosigned) -> str:
    return f"{_named(cosigned.checkpoint)} at {format_utc(cosigned.at)}"
