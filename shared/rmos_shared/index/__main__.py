"""Run the indexer: ``python -m rmos_shared.index``. Its settings come from the environment."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from rmos_shared.errors import RmosError
from rmos_shared.index.process import run_indexer
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.store.choice import chosen_store


def main() -> int:
    """Run until told to stop; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    try:
        store = chosen_store(StoreSettings.load())
        run_indexer(IndexSettings.load(), store, BrokerSettings.load(), stopping)
    except RmosError as error:
        sys.stderr.write(f"error {error.code}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
