"""The errors that a client raises; ``rmos_shared.errors`` draws the tree they belong to."""

from __future__ import annotations

from rmos_shared.errors import (
    BrokerDamaged,
    BrokerUnavailable,
    CallerError,
    DamageFound,
    FieldProblem,
    InvalidRequest,
    JobConflict,
    JobNotFound,
    RmosError,
    SettingsInvalid,
    TryLater,
    WaitTimeout,
)

__all__ = [
    "BrokerDamaged",
    "BrokerUnavailable",
    "CallerError",
    "DamageFound",
    "FieldProblem",
    "InvalidRequest",
    "JobConflict",
    "JobNotFound",
    "RmosError",
    "SettingsInvalid",
    "TryLater",
    "WaitTimeout",
]
