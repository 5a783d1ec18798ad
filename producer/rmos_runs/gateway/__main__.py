"""Run the gateway: ``python -m rmos_runs.gateway``, or ``rmos serve``."""

from __future__ import annotations

from rmos_runs.gateway.app import create_app
from rmos_runs.gateway.catalog import catalogs_of
from rmos_runs.gateway.keys import KeyRing
from rmos_runs.gateway.server import check_address, serve
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.telemetry.log_output import configure_logs
from rmos_shared.telemetry.traces.choice import chosen_traces

if __name__ == "__main__":
    try:
        settings, index, logs = GatewaySettings.load(), IndexSettings.load(), LogSettings.load()
        ring = KeyRing(settings.api_keys_file)
        check_address(settings, ring)
    except SettingsInvalid as error:
        raise SystemExit(f"error: {error}") from None
    configure_logs(logs.log_format, logs.log_level or "INFO")
    traces = chosen_traces("rmos-gateway")
    serve(create_app(settings, catalogs_of(index), index=index, ring=ring, traces=traces), settings)
