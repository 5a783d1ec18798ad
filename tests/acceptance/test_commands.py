"""The root of ``rmos``: its help, its version, completion, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from rmos_runs.cli.exit_codes import EXIT_CODES
from rmos_runs.cli.main import app
from support import spawn

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def below(commands: dict[str, Any], *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with the words that lead to it."""
    for name, command in commands.items():
        yield (*path, name), command
        yield from below(getattr(command, "commands", {}), *path, name)


EVERY: dict[tuple[str, ...], Any] = {(): typer.main.get_command(app), **dict(below(COMMANDS))}


def rmos(*words: str) -> subprocess.CompletedProcess[str]:
    return spawn.run(
        [sys.executable, "-c", "from rmos_runs.cli import main; main()", *words],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_help_tells_every_command_and_every_exit_code() -> None:
    done = rmos("--help")

    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    for name in COMMANDS:
        assert [line for line in lines if line.split()[:1] == [name]], name
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}" in lines
    assert max(map(len, lines)) <= 80


def test_without_a_command_the_help_is_an_error() -> None:
    done = rmos()

    assert done.returncode == 2
    assert "Usage: rmos" in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name: str) -> None:
    done = rmos(name, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: rmos {name} ")


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return what renders the help of a command or group in this process, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def render(*path: str) -> str:
        command = EVERY[path]
        return str(command.get_help(command.context_class(command, info_name=" ".join(("rmos", *path)))))

    return render


@pytest.mark.parametrize("path", EVERY, ids=lambda path: " ".join(("rmos", *path)))
def test_no_summary_of_a_command_is_cut_at_80_columns(
    path: tuple[str, ...], help_of: Callable[..., str]
) -> None:
    told = help_of(*path)
    # The choices of an option are one word, however many they are.
    assert [line for line in told.splitlines() if len(line) > 80 and "|" not in line] == []
    commands = getattr(EVERY[path], "commands", {})
    if commands:
        (rows,) = re.findall(r"^Commands:\n((?:  .*(?:\n|\Z))+)", told, re.MULTILINE)
        summaries = {name: command.get_short_help_str(1_000) for name, command in commands.items()}
        assert all(summaries.values())
        shown = [tuple(row.split(maxsplit=1)) for row in rows.splitlines()]
        assert shown == list(summaries.items()), "cut: make the first sentence of its docstring shorter"


def test_the_commands_of_the_audit_log_come_by_reader(help_of: Callable[..., str]) -> None:
    shop = ["keygen", "key", "status", "seal", "rotate", "prove"]
    auditor = ["verify", "check", "script", "timestamps"]
    assert list(COMMANDS["audit"].commands) == [*shop, *auditor, "witness"]
    told = " ".join(help_of("audit").split())
    assert "From keygen to prove for the shop, from verify to timestamps for an auditor, the last" in told


def test_the_help_says_where_to_start(help_of: Callable[..., str]) -> None:
    assert "  Start with `rmos demo`, then `rmos up`.\n" in help_of()


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--bogus", "Error: No such option: --bogus"),
        ("jobss", "Error: No such command 'jobss'. Did you mean 'jobs'?"),
        ("bogus", "Error: No such command 'bogus'."),
    ],
)
def test_what_is_no_command_or_option_is_refused(word: str, told: str) -> None:
    done = rmos(word)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == told
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    done = rmos("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"rmos-runs {version('rmos-runs')}\n", "")


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

    assert done.returncode in {1, 141}
    assert done.stderr == b""
