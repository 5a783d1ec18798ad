"""The lock files: that of the image is a part of the whole, and holds no tools."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


#: By package and version, the hashes of its files.
Pins = dict[tuple[str, str], frozenset[str]]
_PIN = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)[^\n]*\n((?: +--hash=.*\n)+)", re.MULTILINE)


def locked(name: str) -> Pins:
    found = _PIN.findall((ROOT / name).read_text())
    assert found
    return {
        (canonicalize_name(package), version): frozenset(re.findall(r"sha256:\w+", hashes))
        for package, version, hashes in found
    }


def names(pins: Pins) -> set[str]:
    return {package for package, _ in pins}


@pytest.mark.parametrize("name", ["requirements-runtime.lock", "requirements-build.lock"])
def test_the_image_has_the_versions_that_are_tested(name: str) -> None:
    part, whole = locked(name), locked("requirements.lock")
    assert {pin: whole.get(pin) for pin in part} == part
    text = (ROOT / name).read_text()
    assert "://" not in text, "it names no index"
    assert "--index" not in text


def test_the_image_holds_no_tools() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    tools = {
        canonicalize_name(Requirement(one).name)
        for group in groups.values()
        for one in group
        if isinstance(one, str)
    }
    runtime = names(locked("requirements-runtime.lock"))
    assert tools & runtime == set()
    assert {"pytest", "mypy", "ruff", "hatchling"} & runtime == set()
    assert len(runtime) < len(names(locked("requirements.lock"))) / 1.5
    assert {"hatchling", "editables"} <= names(locked("requirements-build.lock"))
