"""Run Flower: ``python -m rmos_worker.flower``, or ``rmos flower``. Its settings are ``FLOWER_*``."""

from __future__ import annotations

import os
import sys

from rmos_shared.errors import RmosError, SettingsInvalid
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.telemetry.log_output import configure_logs
from rmos_worker.flower.options import read_options
from rmos_worker.flower.server import serve

if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            # Least of all a password, which every process list would show.
            raise SettingsInvalid(
                "Flower takes no arguments here; set FLOWER_* variables, or see `rmos flower`"
            )
        settings, options, logs = BrokerSettings.load(), read_options(os.environ), LogSettings.load()
        configure_logs(logs.log_format, logs.log_level or "INFO")
        serve(settings, options)
    except RmosError as error:
        sys.stderr.write(f"error {error.code}: {error}\n")
        sys.exit(error.exit_code)
