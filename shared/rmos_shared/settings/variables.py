"""The environment variables of all roles."""

from __future__ import annotations

from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_shared.settings.base import Settings
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.worker import WorkerSettings


def variables() -> frozenset[str]:
    """Return the name of every environment variable that some role reads."""
    roles: tuple[type[Settings], ...] = (
        ProducerSettings,
        WorkerSettings,
        AdvisoryStoreSettings,
        GatewaySettings,
        IndexSettings,
        LogSettings,
    )
    # GATEWAY_URL is for programs that call it; `rmos up` sets it in the home's file of variables.
    return frozenset(f"RMOS_{name.upper()}" for role in roles for name in role.model_fields) | {
        "RMOS_GATEWAY_URL"
    }
