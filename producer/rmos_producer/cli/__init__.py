"""The ``rmos`` command; each group of commands has a file of its own."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the ``rmos`` command; an installation that lacks a part says which, without a traceback."""
    words = sys.argv[1:]
    try:
        if not words or words[0] == "--help":
            _help(asked=bool(words))
        else:
            from rmos_producer.cli.main import run  # noqa: PLC0415 - needs what only the extra "cli" brings

            run(words[0])
    except ModuleNotFoundError as missing:
        sys.exit(_lacks(missing))
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _help(*, asked: bool) -> None:
    from rmos_producer.cli.help import page  # noqa: PLC0415 - no other call needs it

    print(page(), file=sys.stdout if asked else sys.stderr, flush=True)
    sys.exit(0 if asked else 2)


def _lacks(missing: ModuleNotFoundError) -> str:
    # Upstream services install the client alone; commands and embedded processes come with the extras.
    name = (missing.name or "a part").partition(".")[0]
    return f"error: this needs {name}, which is not installed; install rmos-runs[all]"
