"""The ``rmos`` command; each group of commands has a file of its own."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version


def main() -> None:
    """Run the ``rmos`` command; an installation that lacks a part says which, without a traceback."""
    try:
        if sys.argv[1:] == ["--version"]:
            # The client alone has this much of the command.
            sys.stdout.write(f"rmos-runs {version('rmos-runs')}\n")
            sys.stdout.flush()
        else:
            _run()
    except ModuleNotFoundError as missing:
        sys.exit(_lacks(missing))
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell.
        _drop_output()
        sys.exit(141)
    except OSError as error:
        # What errors of ours do not cover, such as a full disk behind our output.
        _drop_output()
        sys.exit(f"error: {error}")


def _drop_output() -> None:
    # Or Python would try to write the rest at exit, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run() -> None:
    # redis-py loads OpenTelemetry's metrics wherever they are installed: a quarter of a command's start, for
    # nothing.
    sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]
    from rmos_runs.cli.main import run  # noqa: PLC0415 - needs what only the extra "cli" brings

    try:
        run()
    finally:
        # Here, not at exit, where nobody would catch that the reader of our output went away.
        sys.stdout.flush()


def _lacks(missing: ModuleNotFoundError) -> str:
    # Upstream services install the client alone; commands and embedded processes come with the extras.
    name = (missing.name or "a part").partition(".")[0]
    return f"error: this needs {name}, which is not installed; install rmos-runs[all]"
