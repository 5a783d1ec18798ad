"""The name of the audit log, and the configured key of it."""

from __future__ import annotations

from rmos_runs.local.home import Home
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.configured import signer_of
from rmos_shared.store.choice import chosen_store

__all__ = ["log_origin", "signer_of"]


def log_origin(home: Home) -> str:
    """Return the name of the log of the home's store.

    Raises:
        StoreUnavailable: the store is away, and no setting tells its identity.
    """
    settings = home.store_settings()
    return origin_of(settings.store_id or chosen_store(settings).identity().store_id)
