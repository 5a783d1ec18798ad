"""The ``rmos`` command; each group of commands has a file of its own."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the ``rmos`` command; an installation that lacks a part says which, without a traceback."""
    try:
        from rmos_producer.cli.main import run  # noqa: PLC0415 - needs what only the extra "cli" brings

        run()
    except ModuleNotFoundError as missing:
        sys.exit(_lacks(missing))


def _lacks(missing: ModuleNotFoundError) -> str:
    # Upstream services install the client alone; commands and embedded processes come with the extras.
    return f"error: this needs {missing.name}, which is not installed; install rmos-runs[all]"
