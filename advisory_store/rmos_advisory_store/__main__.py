"""Run the reference advisory store: ``python -m rmos_advisory_store``, or ``rmos advisory-store``."""

from __future__ import annotations

import uvicorn

from rmos_advisory_store.app import create_app
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.telemetry.log_output import configure_logs

if __name__ == "__main__":
    try:
        settings, logs = AdvisoryStoreSettings.load(), LogSettings.load()
    except SettingsInvalid as error:
        raise SystemExit(f"error: {error}") from None
    configure_logs(logs.log_format, logs.log_level or "INFO")
    uvicorn.run(
        create_app(settings),
        host=settings.advisory_host,
        port=settings.advisory_port,
        # Ours is configured; of each request the worker's log and the traces tell.
        log_config=None,
        access_log=False,
        # Calls under way get this long at a stop; whoever made them tries again.
        timeout_graceful_shutdown=5,
    )
