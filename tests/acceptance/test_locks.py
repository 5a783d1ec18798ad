"""The lock files: that of the image is a part of the whole, and holds no tools."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[tuple[str, str], frozenset[str]]:
    """Return the hashes of each package, by its name and what is pinned of it: version and marker."""
    pins = re.findall(
        r"^([\w.-]+)(?:\[[^]]*\])?==([^\s\\]+)([^\\\n]*)\\?\n((?:    --hash=.*\n)+)", (ROOT / name).read_text(), re.MULTILINE
    )
    assert pins
    return {
        (canonicalize_name(package), f"{version}{marker.rstrip()}"): frozenset(re.findall(r"sha256:\w+", hashes))
        for package, version, marker, hashes in pins
    }


def names(pins: dict[tuple[str, str], frozenset[str]]) -> set[str]:
    return {package for package, _ in pins}


def versions(pins: dict[tuple[str, str], frozenset[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, pinned in pins:
        found.setdefault(package, set()).add(pinned.partition(";")[0].strip())
    return found


@pytest.mark.parametrize("name", ["requirements-runtime.lock", "requirements-build.lock"])
def test_the_image_has_the_versions_that_are_tested(name: str) -> None:
    part, whole = locked(name), locked("requirements.lock")
    tested = versions(whole)
    for package, pinned in versions(part).items():
        assert pinned <= tested[package], package
    hashes = {(package, pinned.partition(";")[0].strip()): digests for (package, pinned), digests in whole.items()}
    for (package, pinned), digests in part.items():
        assert digests == hashes[package, pinned.partition(";")[0].strip()], package
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
