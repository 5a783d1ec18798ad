"""The root of ``rmos``: its help is there at once, and a command is loaded when it is called, alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from rmos_runs import cli
from rmos_runs.cli.commands import COMMANDS
from rmos_runs.cli.help import EXIT_CODES, page
from rmos_runs.cli.main import root

#: Tells on the last line of standard error what was loaded between the first line and the end.
PROGRAM = """
import sys
before = set(sys.modules)
sys.argv[0] = "rmos"
from rmos_runs.cli import main
try:
    main()
finally:
    loaded = sorted(set(sys.modules) - before)
    import json
    print(json.dumps(loaded), file=sys.stderr)
"""
MODULES = {name: place.partition(":")[0] for name, (place, _) in COMMANDS.items()}
FOLDER = "rmos_runs.cli."


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
        "rmos_runs",
        "rmos_runs.cli",
        "rmos_runs.cli.commands",
        "rmos_runs.cli.help",
    }
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {"typer", "rich", "pydantic", "redis", "asyncio", "dataclasses", "importlib", "typing"}


def test_without_a_command_the_help_is_an_error() -> None:
    done, loaded = rmos()

    assert (done.returncode, done.stdout, done.stderr) == (2, "", page())
    assert "typer" not in loaded


def test_the_table_names_files_of_its_own_folder_and_all_that_hold_commands() -> None:
    (folder,) = cli.__path__
    without = {"__init__", "commands", "context", "help", "main", "requests", "table", "verdict"}
    without |= {"verify"}  # a command of the group "runs"
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


def test_the_version_is_that_of_the_distribution() -> None:
    done, loaded = rmos("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"rmos-runs {version('rmos-runs')}\n", "")
    assert "typer" not in loaded


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """A search path on which ``rmos`` is this one."""
    program = tmp_path / "bin/rmos"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom rmos_runs.cli import main\nmain()\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rmos ", set(COMMANDS)),
        ("rmos ru", {"runs"}),
        ("rmos jobs ", {"list", "show", "wait", "repair"}),
        ("rmos runs list --date-", {"--date-from", "--date-to"}),
        ("rmos jobs list --state d", {"done", "dead", "discarded"}),
    ],
)
def test_a_real_bash_completes_commands_options_and_values(
    shell_path: str, typed: str, offered: set[str]
) -> None:
    empty = '""' if typed.endswith(" ") else ""
    # What the user does once, and then what bash does at each press of the key.
    script = (
        'eval "$(rmos --show-completion bash)"\n'
        f"COMP_WORDS=({typed}{empty})\n"
        "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))\n"
        "function_of=$(complete -p rmos | sed 's/.*-F \\([^ ]*\\) .*/\\1/')\n"
        "$function_of rmos\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": shell_path, "SHELL": "/bin/bash"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stderr == ""
    found = set(done.stdout.split())
    assert found == offered if typed != "rmos jobs " else found >= offered


def test_completion_is_installed_where_bash_reads_it(shell_path: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["rmos", "--install-completion", "bash"],
        env={**os.environ, "PATH": shell_path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert any("_RMOS_COMPLETE" in file.read_text() for file in tmp_path.rglob("*.sh"))
    assert ".bash_completions" in (tmp_path / ".bashrc").read_text()


def test_a_full_disk_behind_the_output_is_told_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from rmos_runs.cli import main; main()", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


def test_an_argument_that_is_no_text_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from rmos_runs.cli import main; main()", "jobs", "show", b"\xff"],
        env={**os.environ, "RMOS_BROKER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode in {2, 6}
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-c", "from rmos_runs.cli import main; main()", "--help"],
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (done.returncode, done.stderr) == (141, b"")
