"""The time stamps of a store's audit log, each held against its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rmos_runs.operations.audit_log import audit_log_of
from rmos_shared.auditlog.layout import TIMESTAMPS, number_of, timestamp_key
from rmos_shared.auditlog.timestamp import proven_token
from rmos_shared.errors import CorruptArtifact, TimestampRefused
from rmos_shared.store.base import ArtifactStore

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_SUFFIX = ".tsr"


@dataclass(frozen=True, slots=True)
class Stamp:
    """One time stamp, and what it proves."""

    key: str
    #: Of the checkpoint; None for a file that is named as none is.
    size: int | None
    #: When the authority saw it; None if nothing is proven.
    at: datetime | None
    #: Why nothing is proven.
    problem: str | None = None


def stamps(store: ArtifactStore, roots: Sequence[Certificate]) -> Iterator[Stamp]:
    """Yield the time stamps in a store, oldest checkpoint first.

    With ``roots`` each must be signed by an authority that they trust; without, only its hash is compared,
    which anybody could have made.

    Raises:
        SettingsInvalid: the extra ``timestamps`` is not installed.
        StoreUnavailable: the store is away.
    """
    log = audit_log_of(store)
    for key in store.list(TIMESTAMPS):
        name = key.removeprefix(TIMESTAMPS)
        size = number_of(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
        if size is None or log is None or key != timestamp_key(size):
            yield Stamp(key, None, None, f"{key} is no time stamp of a checkpoint")
            continue
        try:
            text = log.note(size)[1].text.encode()
            yield Stamp(key, size, proven_token(store.get(key) or b"", text, roots))
        except (TimestampRefused, CorruptArtifact) as error:
            yield Stamp(key, size, None, str(error))
