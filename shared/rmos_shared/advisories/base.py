"""What a task asks of an advisory store."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from rmos_shared.advisories.model import AdvisoryAsset


class SaveOutcome(Enum):
    """How a ``save`` ended; either way the store now holds the asset durably."""

    #: The store did not know the asset before.
    CREATED = "created"
    #: It held an asset of this id and content already: a repeat, and a success.
    ALREADY_SAME = "already_same"


class AdvisoryStore(Protocol):
    """Keeps assets by id; an asset once saved never changes its content."""

    def save(self, asset: AdvisoryAsset) -> SaveOutcome:
        """Store ``asset`` unless its id is there already. Repeating the call is always safe.

        Raises:
            AdvisoryRefused: the store will never take it; among others, its id has other content.
            AdvisoryUnavailable: it may or may not be stored; repeat the call later.
        """
        ...

    def fetch(self, asset_id: str) -> AdvisoryAsset:
        """Return the asset with its last review, its content checked against its hash.

        Raises:
            AdvisoryNotFound: the store has no such asset.
            AdvisoryRefused: the store will never answer this.
            AdvisoryUnavailable: repeat the call later.
        """
        ...
