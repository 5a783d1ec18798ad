"""Assets and the reviews of them, on an artifact store: nothing is changed, all is composed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from rmos_shared.advisories.base import SaveOutcome
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.clock import Clock
from rmos_shared.errors import (
    AdvisoryNotFound,
    Conflict,
    CorruptArtifact,
    FieldProblem,
    InvalidRequest,
)
from rmos_shared.ids import is_safe_id, new_uuid7
from rmos_shared.models.base import Frozen, SafeId, SingleLine, UtcTime, Utf8Text
from rmos_shared.store.base import ArtifactStore, Outcome
from rmos_shared.telemetry.events import FileCorrupt
from rmos_shared.telemetry.log import emit

_Record = TypeVar("_Record", bound=Frozen)


class ReviewRequest(Frozen):
    """A person's verdict as sent."""

    approved: bool
    reviewed_by: SingleLine
    note: Utf8Text | None = None


class AssetReview(ReviewRequest):
    """A person's verdict as stored: one more file beside the asset."""

    #: A UUIDv7, so reviews sort by time.
    review_id: SafeId
    asset_id: SafeId
    created_at_utc: UtcTime


@dataclass(frozen=True, slots=True)
class AssetPage:
    """One page of a listing."""

    assets: list[AdvisoryAsset]
    #: Ids on this page whose files cannot be read: told, not skipped, and no hindrance to the others.
    corrupt: list[str]
    #: The ``after`` of the next page; None at the end.
    next_after: str | None


class AssetLog:
    """Assets by id, kept as ``assets/{id}.json``, their reviews as ``reviews/{id}/{review_id}.json``.

    Everything is durable before a method returns. May be used by several threads and processes at once.
    Every method raises ``StoreUnavailable`` when the store below cannot be read or written now.
    """

    def __init__(self, store: ArtifactStore, clock: Clock) -> None:
        """Keep the assets in ``store``."""
        self._store = store
        self._clock = clock

    def save(self, asset: AdvisoryAsset) -> SaveOutcome:
        """Store ``asset`` unless its id is there already with the same content.

        Raises:
            InvalidRequest: its ``content_hash`` is not the hash of its ``suggestion_data``.
            Conflict: its id is there with other content, which stays.
            CorruptArtifact: what is there cannot be read.
        """
        if asset.content_hash != canonical_sha256(asset.suggestion_data):
            problem = FieldProblem("content_hash", "is not the hash of suggestion_data")
            raise InvalidRequest((problem,), what="asset")
        outcome = self._store.create(_asset_key(asset.asset_id), asset.to_bytes())
        if outcome is Outcome.CREATED:
            return SaveOutcome.CREATED
        # A retry may differ in its times and request id; only the content makes it another asset.
        if outcome is Outcome.CONFLICT and self._stored(asset.asset_id).content_hash != asset.content_hash:
            raise Conflict(f"asset {asset.asset_id} is stored with other content, which stays; use a new id")
        return SaveOutcome.ALREADY_SAME

    def get(self, asset_id: str) -> AdvisoryAsset:
        """Return the asset as its last review leaves it.

        Raises:
            InvalidRequest: ``asset_id`` can be no asset's id.
            AdvisoryNotFound: there is none.
            CorruptArtifact: the asset or the review cannot be read.
        """
        if not is_safe_id(asset_id):
            raise InvalidRequest((FieldProblem("asset_id", "can be no asset's id"),))
        asset = self._stored(asset_id)
        last = max(self._store.list(_reviews_prefix(asset_id)), default=None)
        return asset if last is None else _compose(asset, self._read(last, AssetReview))

    def review(self, asset_id: str, request: ReviewRequest) -> AdvisoryAsset:
        """Add a person's verdict, which outranks those before it, and return the asset as it is now.

        Raises:
            InvalidRequest, AdvisoryNotFound, CorruptArtifact: as ``get``.
        """
        self.get(asset_id)
        now = self._clock.now()
        review = AssetReview(
            **request.model_dump(), review_id=new_uuid7(now), asset_id=asset_id, created_at_utc=now
        )
        self._store.create(f"{_reviews_prefix(asset_id)}{review.review_id}.json", review.to_bytes())
        return self.get(asset_id)

    def page(self, *, pending: bool, limit: int, after: str | None) -> AssetPage:
        """Return up to ``limit`` assets whose ids follow ``after``, in the store's order.

        ``pending`` leaves out those reviewed, or approved when they were made.

        Raises:
            InvalidRequest: ``after`` can be no asset's id.
        """
        if after is not None and not is_safe_id(after):
            raise InvalidRequest((FieldProblem("after", "can be no asset's id"),))
        assets: list[AdvisoryAsset] = []
        corrupt: list[str] = []
        last = None
        for key in self._store.list("assets/", after="" if after is None else _asset_key(after)):
            asset_id = key.removeprefix("assets/").removesuffix(".json")
            if not is_safe_id(asset_id):
                continue  # the store lists whatever lies there; this was never an asset
            asset = self._readable(asset_id)
            if asset is not None and pending and (asset.reviewed or asset.approved_for_workflow):
                continue
            if len(assets) + len(corrupt) == limit:
                return AssetPage(assets, corrupt, next_after=last)
            if asset is None:
                corrupt.append(asset_id)
            else:
                assets.append(asset)
            last = asset_id
        return AssetPage(assets, corrupt, next_after=None)

    def _readable(self, asset_id: str) -> AdvisoryAsset | None:
        try:
            return self.get(asset_id)
        except CorruptArtifact as error:
            emit(FileCorrupt(file=error.key, reason=error.reason))
            return None

    def _stored(self, asset_id: str) -> AdvisoryAsset:
        key = _asset_key(asset_id)
        asset = self._read(key, AdvisoryAsset)
        if asset.content_hash != canonical_sha256(asset.suggestion_data):
            raise CorruptArtifact(key, "content_hash is not the hash of suggestion_data")
        return asset

    def _read(self, key: str, kind: type[_Record]) -> _Record:
        data = self._store.get(key)
        if data is None:
            raise AdvisoryNotFound(key.rpartition("/")[2].removesuffix(".json"))
        try:
            return kind.read(json.loads(data))
        except InvalidRequest as error:
            raise CorruptArtifact(key, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise CorruptArtifact(key, "not JSON") from error


def _compose(asset: AdvisoryAsset, review: AssetReview) -> AdvisoryAsset:
    return asset.model_copy(
        update={
            "reviewed": True,
            "approved_for_workflow": review.approved,
            "reviewed_by": review.reviewed_by,
            "reviewed_at_utc": review.created_at_utc,
            "review_note": review.note if review.approved else None,
            "rejection_reason": None if review.approved else review.note,
        }
    )


def _asset_key(asset_id: str) -> str:
    return f"assets/{asset_id}.json"


def _reviews_prefix(asset_id: str) -> str:
    return f"reviews/{asset_id}/"
