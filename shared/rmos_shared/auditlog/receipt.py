"""What tells the sealer of a published file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256

from rmos_shared.auditlog.entry import Found, record_line
from rmos_shared.errors import CorruptArtifact
from rmos_shared.store.base import ArtifactStore, KeyInvalid

#: A file that no receipt tells of is left alone for that long: its receipt may be on the way.
LATE_AFTER = timedelta(seconds=120)


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
    #: Whether the file was created less than a minute before, so that nobody can have sealed it as late;
    #: another job may have told of it. False: the log may have had it for long.
    created: bool = True
    #: On the act that introduces a new signing key: that key (a vkey).
    trusts: str | None = None
    found: Found | None = None

    def no_earlier(self, at: datetime) -> Receipt:
        """Return it as taken at that time, if it was taken before."""
        return self if self.at >= at else replace(self, at=at)

    def to_line(self) -> bytes:
        """Return the entry that the receipt becomes; raises as ``record_line``."""
        return record_line(self.at, self.key, self.sha256, self.size, found=self.found, trusts=self.trusts)


def receipt_of(store: ArtifactStore, key: str, at: datetime, found: Found) -> Receipt:
    """Return the receipt of a file that was found at that time, by reading it, in pieces.

    Raises:
        CorruptArtifact: it cannot be read, or is gone.
        StoreUnavailable: the store is away.
    """
    digest = sha256()
    size = 0
    try:
        with store.pieces(key) as pieces:
            if pieces is None:
                raise CorruptArtifact(key, "it was listed and is gone")
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
    except KeyInvalid:
        raise CorruptArtifact(key, "its name is none that this store gives") from None
    return Receipt(key, digest.hexdigest(), size, at, found=found)
