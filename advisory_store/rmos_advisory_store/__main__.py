"""Run the reference advisory store: ``python -m rmos_advisory_store``, or ``rmos advisory-store``."""

from __future__ import annotations

import uvicorn

from rmos_advisory_store.app import create_app
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings

if __name__ == "__main__":
    try:
        settings = AdvisoryStoreSettings.load()
    except SettingsInvalid as error:
        raise SystemExit(f"error: {error}") from None
    uvicorn.run(
        create_app(settings),
        host=settings.advisory_host,
        port=settings.advisory_port,
        log_level="warning",
        # Calls under way get this long at a stop; whoever made them tries again.
        timeout_graceful_shutdown=5,
    )
