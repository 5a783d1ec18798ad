"""``rmos audit`` is given a directory, or what can be no file, where it wants the file of a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmos_runs.local.home import Home
from support.command import piped

#: The last is below a file.
NO_FILES = ["/", ".", "..", "", "dir", "file/below"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = Home(tmp_path / "home")
    home.init_store()
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", NO_FILES)
def test_no_key_is_made_or_read_where_no_file_can_be(place: Path, path: str) -> None:
    before = sorted(place.iterdir())
    witness = ("witness", str(place / "home/runs"), "--state", str(place / "state"), "--once")
    for words in (("keygen", path), ("keygen", path, "--name", "w.example/1"), (*witness, "--key", path)):
        done = piped("audit", *words, home=place / "home")
        assert done.returncode in {2, 5}, (words, done.stderr)
        assert done.stderr.startswith(("error SETTINGS_INVALID: ", "error KEY_FILE_EXISTS: ")), words
    assert sorted(place.iterdir()) == before
