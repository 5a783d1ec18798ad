"""The tour is what happens: its commands print what the page shows; see ``support.console``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from rmos_runs.local.ports import lasting_port
from support.console import Console, commands

PAGE = Path(__file__).parents[2] / "docs" / "tour.md"


@pytest.mark.timeout(300)
def test_every_command_of_the_tour_prints_what_the_page_shows(tmp_path: Path) -> None:
    shown = list(commands(PAGE.read_text()))
    assert len(shown) > 20
    with ExitStack() as stack:
        console = Console(tmp_path)
        console.names.known["8799"] = str(lasting_port())
        stack.callback(console.close)
        for command in shown:
            printed = console.run(command)
            assert printed is None, (
                f"tour.md:{command.line}: {command.text}\nprinted:\n{printed}\nnot:\n{command.shown}"
            )
