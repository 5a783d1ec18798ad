"""A page's console blocks, run in order, and held against what the page shows.

A line ``...`` stands for any lines. Ids, temporary directories, ports, times and durations may differ; an id
that the page shows again is the same one here, also in commands. A block ``console NAME`` is another
terminal, whose command runs on until a block of that terminal shows ``^C``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```console *(?P<terminal>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
#: What differs from run to run. An id or a path that is seen again is the same; the others are only alike.
_NAMES = re.compile(r"\b[0-9a-f]{32}\b|/tmp/rmos-demo-\w+|(?<=127\.0\.0\.1:)\d+|(?<=PORT=)\d+")
_PATTERNS = {
    "time": r"\d{4}-\d\d-\d\dT[\d:.]+Z",
    "day": r"\d{4}-\d\d-\d\d",
    "seconds": r"\d+(?:\.\d+)? ?(?:ms|s|min)\b",
}
_ALIKE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_SECONDS = 60.0


@dataclass(frozen=True)
class Command:
    """One command of a block, with what the page shows after it; ``^C`` stops what runs in its terminal."""

    terminal: str
    line: int
    text: str
    shown: str


def commands(page: str) -> Iterator[Command]:
    for block in _BLOCK.finditer(page):
        first = page.count("\n", 0, block.start("text")) + 1
        lines = block["text"].splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith(("$ ", "^C"))]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            shown = "\n".join(lines[start + 1 : end])
            yield Command(block["terminal"], first + start, lines[start].removeprefix("$ "), shown)


@dataclass
class Names:
    """The ids and paths of the page, and what they are here."""

    known: dict[str, str] = field(default_factory=dict)

    def here(self, text: str) -> str:
        return _NAMES.sub(lambda found: self.known.get(found[0], found[0]), text)

    def match(self, shown: str, printed: str) -> bool:
        """Say whether a page's text is what was printed, and learn the names that it shows first."""
        groups: dict[str, str] = {}
        pattern = "\n".join(self._line(line, groups) for line in shown.strip("\n").splitlines())
        pattern = pattern.replace("\n\0\n", r"\n(?:.*\n)*?").replace("\n\0", r"(?:\n.*)*")
        pattern = pattern.replace("\0\n", r"(?:.*\n)*?").replace("\0", r"(?:.*\n?)*")
        found = re.fullmatch(pattern, _tidy(printed).strip("\n"))
        if found is None:
            return False
        self.known |= {name: found[group] for name, group in groups.items()}
        return True

    def _line(self, line: str, groups: dict[str, str]) -> str:
        if line.strip() == "...":
            return "\0"
        parts, place = [], 0
        tidy = _tidy(line)
        for name in _NAMES.finditer(tidy):
            parts.append(_alike(tidy[place : name.start()]))
            parts.append(self._name(name[0], groups))
            place = name.end()
        return "".join([*parts, _alike(tidy[place:])])

    def _name(self, name: str, groups: dict[str, str]) -> str:
        if name in self.known:
            return re.escape(self.known[name])
        if name in groups:
            return f"(?P={groups[name]})"
        groups[name] = f"name{len(groups)}"
        kind = r"\d+" if name.isdigit() else "[0-9a-f]{32}" if "/" not in name else "/tmp/[^ /;]+"  # noqa: S108
        return f"(?P<{groups[name]}>{kind})"


def _tidy(text: str) -> str:
    """Return a text without what a terminal adds: columns are tabs in a pipe, and have no rule below."""
    lines = (re.sub(r"[ \t]+", " ", line).rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if not re.fullmatch("[─ ]+", line))


def _alike(text: str) -> str:
    parts, place = [], 0
    for found in _ALIKE.finditer(text):
        parts.append(_elided(text[place : found.start()]))
        parts.append(_PATTERNS[found.lastgroup or ""])
        place = found.end()
    return "".join([*parts, _elided(text[place:])])


def _elided(text: str) -> str:
    return re.escape(text).replace(re.escape("..."), ".*")


class Console:
    """The terminals of the tour: a shell in front, and programs that run on beside it."""

    def __init__(self, directory: Path) -> None:
        self.names = Names()
        self._directory = directory
        self._exports: list[str] = []
        self._running: dict[str, tuple[subprocess.Popen[str], Path]] = {}

    def run(self, command: Command) -> str | None:
        """Run one command; return what it printed if the page shows something else."""
        text = self.names.here(command.text)
        if text == "^C":
            self.interrupt(command.terminal)
            return None
        if command.terminal:
            return self._beside(command, text)
        if text.startswith("export "):
            self._exports.append(text)
            return None
        done = subprocess.run(
            ["bash", "-c", "\n".join([*self._exports, text])],
            cwd=self._directory,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return None if self.names.match(command.shown, done.stdout) else done.stdout

    def _beside(self, command: Command, text: str) -> str | None:
        """Start a program, or interrupt the one that runs in its terminal; wait for what the page shows."""
        log = self._directory / f"{command.terminal}.{command.line}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", "\n".join([*self._exports, text])],
                cwd=self._directory,
                env=_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._running[command.terminal] = process, log
        deadline = time.monotonic() + _SECONDS
        while not self.names.match(command.shown, log.read_text()):
            if time.monotonic() > deadline or process.poll() is not None:
                return log.read_text()
            time.sleep(0.1)
        return None

    def interrupt(self, terminal: str) -> None:
        process, _ = self._running.pop(terminal)
        # As Ctrl-C, to all in the terminal; SIGINT itself is ignored where this runs in the background.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=_SECONDS)

    def close(self) -> None:
        for terminal in list(self._running):
            with suppress(ProcessLookupError):
                self.interrupt(terminal)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RMOS_", "FLOWER_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "COLUMNS": "120", "NO_COLOR": "1"}
