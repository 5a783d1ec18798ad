"""The auditor's pages are what happens: every command runs, those of the witness after the shop's."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from support.console import Console, commands

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


@pytest.mark.timeout(300)
def test_every_command_of_the_auditors_pages_prints_what_they_show(tmp_path: Path) -> None:
    with ExitStack() as stack:
        console = Console(tmp_path)
        stack.callback(console.close)
        for page in ("audit.md", "witness.md"):
            shown = list(commands((HOW_TO / page).read_text()))
            assert len(shown) >= 7
            for command in shown:
                printed = console.run(command)
                assert printed is None, (
                    f"{page}:{command.line}: {command.text}\nprinted:\n{printed}\nnot:\n{command.shown}"
                )
