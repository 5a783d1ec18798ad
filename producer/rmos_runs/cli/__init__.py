"""The ``rmos`` command; each group of commands has a file of its own."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the ``rmos`` command; an installation that lacks a part says which, without a traceback."""
    words = sys.argv[1:]
    try:
        if "_RMOS_COMPLETE" in os.environ:
            # A shell asks what could follow; the words so far are in its variables.
            _run("")
        elif not words or words[0] == "--help":
            _help(asked=bool(words))
        elif words[0] == "--version":
            _version()
        else:
            _run(words[0])
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


def _run(name: str) -> None:
    from rmos_runs.cli.main import run  # noqa: PLC0415 - needs what only the extra "cli" brings

    try:
        run(name)
    finally:
        # Here, not at exit, where nobody would catch that the reader of our output went away.
        sys.stdout.flush()


def _version() -> None:
    from importlib.metadata import version  # noqa: PLC0415 - no other call needs it

    sys.stdout.write(f"rmos-runs {version('rmos-runs')}\n")
    sys.stdout.flush()


def _help(*, asked: bool) -> None:
    from rmos_runs.cli.help import page  # noqa: PLC0415 - no other call needs it

    print(page(), file=sys.stdout if asked else sys.stderr, flush=True)
    sys.exit(0 if asked else 2)


def _lacks(missing: ModuleNotFoundError) -> str:
    # Upstream services install the client alone; commands and embedded processes come with the extras.
    name = (missing.name or "a part").partition(".")[0]
    return f"error: this needs {name}, which is not installed; install rmos-runs[all]"
