"""The root of ``rmos``: its help is there at once, and a command is loaded when it is called, alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rmos_producer import cli
from rmos_producer.cli.commands import COMMANDS
from rmos_producer.cli.help import EXIT_CODES, page
from rmos_producer.cli.main import root

#: Tells on the last line of standard error what was loaded between the first line and the end.
PROGRAM = """
import sys
before = set(sys.modules)
sys.argv[0] = "rmos"
from rmos_producer.cli import main
try:
    main()
finally:
    loaded = sorted(set(sys.modules) - before)
    import json
    print(json.dumps(loaded), file=sys.stderr)
"""
MODULES = {name: place.partition(":")[0] for name, (place, _) in COMMANDS.items()}
FOLDER = "rmos_producer.cli."


def rmos(*words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command; return how it ended and the modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False, timeout=60
    )
    *told, loaded = done.stderr.splitlines()
    done.stderr = "\n".join(told)
    return done, set(json.loads(loaded))


def test_the_help_tells_every_command_and_every_exit_code() -> None:
    lines = page().splitlines()

    for name, (_, summary) in COMMANDS.items():
        assert [name, *summary.split()] in [line.split() for line in lines]
    for code, meaning in EXIT_CODES.items():
        assert f"  {code}  {meaning}" in lines
    assert max(map(len, lines)) <= 80


def test_the_help_loads_nothing_that_it_does_not_print() -> None:
    done, loaded = rmos("--help")

    assert (done.returncode, done.stdout, done.stderr) == (0, page() + "\n", "")
    assert {name for name in loaded if name.startswith("rmos")} == {
        "rmos_producer",
        "rmos_producer.cli",
        "rmos_producer.cli.commands",
        "rmos_producer.cli.help",
    }
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {"typer", "rich", "pydantic", "redis", "asyncio", "dataclasses", "importlib", "typing"}


def test_without_a_command_the_help_is_an_error() -> None:
    done, loaded = rmos()

    assert (done.returncode, done.stdout, done.stderr) == (2, "", page())
    assert "typer" not in loaded


def test_the_table_names_files_of_its_own_folder_and_all_that_hold_commands() -> None:
    (folder,) = cli.__path__
    without = {"__init__", "commands", "context", "help", "main", "requests"}
    assert {file.stem for file in Path(folder).glob("*.py")} - without == set(MODULES.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_loaded_alone(name: str) -> None:
    done, loaded = rmos(name, "--help")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: rmos {name} ")
    others = {FOLDER + module for module in MODULES.values()} - {FOLDER + MODULES[name]}
    assert FOLDER + MODULES[name] in loaded
    assert not loaded & others


def test_the_help_of_each_command_opens_with_its_summary() -> None:
    group = typer.main.get_command(root())

    assert list(group.commands) == list(COMMANDS)  # type: ignore[attr-defined]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help.startswith(COMMANDS[name][1])


def test_the_usage_is_the_one_that_typer_tells() -> None:
    done, _ = rmos("--bogus")

    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == page().splitlines()[0]
    assert done.stderr.splitlines()[-1] == "Error: No such option: --bogus"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("jobss", "Error: No such command 'jobss'. Did you mean 'jobs'?"),
        ("bogus", "Error: No such command 'bogus'."),
    ],
)
def test_a_command_that_is_none_is_refused(word: str, told: str) -> None:
    done, _ = rmos(word)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == told
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-c", "from rmos_producer.cli import main; main()", "--help"],
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (done.returncode, done.stderr) == (141, b"")
