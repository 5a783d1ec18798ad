"""Run the indexer: ``python -m rmos_shared.index``. Its settings come from the environment."""

from __future__ import annotations

import signal
import sys
import threading

from rmos_shared.errors import RmosError
from rmos_shared.index.process import run_indexer
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.store.choice import chosen_store
from rmos_shared.telemetry.log_output import configure_logs


def main() -> int:
    """Run until told to stop; return the exit code."""
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    try:
        logs = LogSettings.load()
        configure_logs(logs.log_format, logs.log_level or "INFO")
        store = chosen_store(StoreSettings.load())
        run_indexer(IndexSettings.load(), store, BrokerSettings.load(), stopping)
    except RmosError as error:
        sys.stderr.write(f"error {error.code}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
