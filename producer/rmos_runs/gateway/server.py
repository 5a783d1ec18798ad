"""The server around the application: where it listens, and how long it is patient."""

from __future__ import annotations

import resource

import uvicorn
from starlette.types import ASGIApp

from rmos_runs.gateway.caller import is_loopback
from rmos_runs.gateway.connection import timed_connection
from rmos_runs.gateway.keys import KeyRing
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.gateway import GatewaySettings

#: Requests under way get this long at a stop; whoever made them calls again.
_STOP_SECONDS = 10


def check_address(settings: GatewaySettings, ring: KeyRing) -> None:
    """Refuse to listen where strangers are while there are no keys.

    Raises:
        SettingsInvalid: naming the variables.
    """
    if not ring.configured and not is_loopback(settings.gateway_host):
        raise SettingsInvalid(
            f"RMOS_GATEWAY_HOST: {settings.gateway_host} is not loopback, and RMOS_API_KEYS_FILE "
            "names no keys; make one with `rmos keys add`"
        )


def serve(app: ASGIApp, settings: GatewaySettings) -> None:
    """Serve until stopped."""
    _allow_connections()
    uvicorn.run(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        http=timed_connection(settings),
        ws="none",
        # Our own log has a line for each request, with its route and not its path.
        access_log=False,
        log_config=None,
        server_header=False,
        # Whoever says by a header that it is somebody else is not believed.
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def _allow_connections() -> None:
    # Many systems start a process with 1,024; a thousand that wait would have none left for the broker.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
