"""The reference advisory store, each call ``SLOW_STORE_SECONDS`` later."""

from __future__ import annotations

import asyncio
import os

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from rmos_advisory_store.app import create_app
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings


def slowed(app: ASGIApp, seconds: float) -> ASGIApp:
    """Return ``app`` with a pause before each call."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(seconds)
        await app(scope, receive, send)

    return serve


if __name__ == "__main__":
    settings = AdvisoryStoreSettings.load()
    uvicorn.run(
        slowed(create_app(settings), float(os.environ["SLOW_STORE_SECONDS"])),
        port=settings.advisory_port,
        log_level="warning",
    )
