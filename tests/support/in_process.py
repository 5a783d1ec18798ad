"""``rmos`` in this process, as its entry point runs it: no terminal, and nobody to ask."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rmos_runs.cli.main import run as run_command


@dataclass
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Rmos = Callable[..., Told]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rmos:
    """Return what runs a command in the environment of the test."""

    def run(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["rmos", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        code: Any = 0
        try:
            run_command()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return Told(int(code), said.out, said.err)

    return run
