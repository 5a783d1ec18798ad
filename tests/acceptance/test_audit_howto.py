"""The auditor's pages are what happens: every command runs, the witness's while the first log goes on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from support.console import Console, commands

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


#: Where the first log ends: what follows runs after the witness's page, which is of that log.
LAST = "\n## A key that is lost or stolen\n"


@pytest.mark.timeout(480)
def test_every_command_of_the_auditors_pages_prints_what_they_show(tmp_path: Path) -> None:
    pages = {page: list(commands((HOW_TO / page).read_text())) for page in ("audit.md", "witness.md")}
    before, found, _ = (HOW_TO / "audit.md").read_text().partition(LAST)
    assert found
    end = before.count("\n")
    first = [command for command in pages["audit.md"] if command.line < end]
    last = [command for command in pages["audit.md"] if command.line > end]
    with ExitStack() as stack:
        console = Console(tmp_path)
        stack.callback(console.close)
        for page, shown in (("audit.md", first), ("witness.md", pages["witness.md"]), ("audit.md", last)):
            assert len(shown) >= 7
            for command in shown:
                printed = console.run(command)
                assert printed is None, (
                    f"{page}:{command.line}: {command.text}\nprinted:\n{printed}\nnot:\n{command.shown}"
                )
