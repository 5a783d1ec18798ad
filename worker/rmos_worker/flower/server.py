"""Flower's server: its own pages, with ours in the place of some, around an app that does no work."""

from __future__ import annotations

import signal
from typing import Any

from celery import Celery
from flower.app import Flower
from flower.command import extract_settings, setup_logging
from flower.urls import settings as flower_settings
from kombu.utils.url import maybe_sanitize_url
from tornado.options import OptionParser
from tornado.web import url

from rmos_shared.errors import SettingsInvalid
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.queues import JobQueues
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.telemetry.events import FlowerStarted
from rmos_shared.telemetry.log import emit
from rmos_worker.celery_app.broker import celery_config
from rmos_worker.flower.queues import BrokerPage, QueueLengths
from rmos_worker.flower.tasks import TasksPage


def serve(settings: BrokerSettings, options: OptionParser) -> None:
    """Serve until stopped by SIGTERM or SIGINT; a broker that is away is waited for.

    Raises:
        SettingsInvalid: Flower cannot listen where it is told to.
    """
    setup_logging()
    extract_settings()
    ledger = JobLedger.connect(settings)
    server = Flower(capp=watching_app(settings), options=options, **flower_settings)
    broker = maybe_sanitize_url(settings.broker_url.get_secret_value())
    server.add_handlers(".*", _pages(ledger.queues, broker, options.url_prefix))
    _listen(server, options)
    for signum in (signal.SIGTERM, signal.SIGINT):
        server.io_loop.asyncio_loop.add_signal_handler(signum, server.io_loop.stop)
    emit(FlowerStarted(address=options.address, port=options.port, controls=not options.read_only))
    try:
        server.start()
    finally:
        server.stop()
        ledger.close()


def watching_app(settings: BrokerSettings) -> Celery:
    """Return an app that reads events and sends control messages: no tasks, and no gate, as it takes none."""
    app = Celery("rmos")
    app.conf.update(
        celery_config(settings), broker_transport="rmos_worker.celery_app.broadcast:CheckedTransport"
    )
    return app


def _pages(queues: JobQueues, broker: str, prefix: str | None) -> list[Any]:
    """Return our pages, which outrank Flower's of the same address."""
    below = f"/{prefix.strip('/')}" if prefix else ""
    return [
        url(f"{below}/tasks", TasksPage),
        url(f"{below}/broker", BrokerPage, {"queues": queues, "broker": broker}),
        url(f"{below}/api/queues/length", QueueLengths, {"queues": queues}),
    ]


def _listen(server: Any, options: OptionParser) -> None:
    try:
        server.start_http_server()
    except OSError as error:
        place = options.unix_socket or f"port {options.port} of {options.address}"
        raise SettingsInvalid(
            f"Flower cannot listen on {place} ({error.strerror}); set FLOWER_PORT or FLOWER_ADDRESS"
        ) from error
