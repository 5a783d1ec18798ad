"""Who acts: what the system says, with a name of their own beside it and never in its place."""

from __future__ import annotations

import os
import pwd
import socket

import pytest

from rmos_runs.operations.identity import Identity, current_identity
from rmos_shared.errors import InvalidRequest


def test_it_is_the_account_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "somebody-else")
    told = current_identity()
    assert (told.user, told.host) == (pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())
    assert str(told) == f"person:{told.user}@{told.host}"


def test_an_account_without_a_name_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert current_identity().user == "uid-4000000001"


def test_an_alias_stands_beside_the_account() -> None:
    assert str(current_identity(" Ana ")) == f"{current_identity()} (as Ana)"
    assert current_identity("  ") == current_identity()
    assert str(Identity("erp", kind="key")) == "key:erp"


@pytest.mark.parametrize("alias", ["a\nb", "\x1b[31mred", "x" * 201])
def test_an_alias_is_one_short_line(alias: str) -> None:
    with pytest.raises(InvalidRequest, match="one line"):
        current_identity(alias)
