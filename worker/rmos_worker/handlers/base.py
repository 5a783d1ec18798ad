"""What the executor asks of every handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.models.base import Frozen
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.scope import busy_with

PayloadT = TypeVar("PayloadT", bound=Frozen)


class Handler(Protocol):
    """Does the work of one task. Its effects are idempotent: it may run again at any time."""

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Do each job, and return for each, in order, what it came to or why it failed.

        Raises:
            Exception: every job of the group failed with it.
        """
        ...

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        """Record what readers must know of a job that is about to be buried; return what it published.

        Raises:
            StoreUnavailable: it could not be recorded, so the job must not be buried yet.
        """
        ...


def read_payload(claim: Claim, kind: type[PayloadT]) -> PayloadT:
    """Return the payload of a claimed job.

    Raises:
        InvalidRequest: it is not what its task takes; the record keeps the original bytes.
    """
    return kind.read_json(claim.payload, what=f"payload of {claim.task}")


def each(claims: Sequence[Claim], work: Callable[[Claim], Finish]) -> list[Finish | Exception]:
    """Do ``work`` on each job by itself: one that fails does not touch the others."""
    ends: list[Finish | Exception] = []
    for claim in claims:
        try:
            with busy_with(claim.scope):
                ends.append(work(claim))
        except Exception as error:  # noqa: BLE001 - whatever it is, the executor decides on it
            ends.append(error)
    return ends
