"""A unit test starts no process and opens no connection: what needs either belongs to another folder."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_process_and_no_socket() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a unit test starts no process and opens no connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        for call in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, call, refuse)
        yield
