"""What ``rmos --help`` prints. Typer is left out: loading it takes longer than all the rest."""

from __future__ import annotations

from rmos_runs.cli.commands import COMMANDS

#: Every code that the command ends with of itself, and what it means.
EXIT_CODES = {
    0: "done",
    1: "unexpected error",
    2: "usage or settings",
    3: "invalid input",
    4: "not found",
    5: "conflict or not allowed",
    6: "try again later",
    7: "damage found",
    8: "invariant broken",
    9: "job ended dead",
}
_PAGE = """\
Usage: rmos [OPTIONS] COMMAND [ARGS]...

  Record why every cut was allowed: put runs in, watch their jobs, read their
  artifacts.

Options:
  --version             Show the version and exit.
  --install-completion  Have the current shell complete commands and options.
  --show-completion     Print what that would install.
  --help                Show this message and exit.

Commands:
{commands}

Exit codes:
{codes}"""


def page() -> str:
    """Return the help of the root; no line is longer than 80 columns."""
    width = max(map(len, COMMANDS))
    return _PAGE.format(
        commands="\n".join(f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()),
        codes="\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items()),
    )
