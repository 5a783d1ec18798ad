"""The shape of the source: who may import whom, and where each package lies."""

from __future__ import annotations

import ast
import json
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The "may import" column of docs/architecture.md.
MAY_IMPORT: dict[str, set[str]] = {
    "rmos_shared": set(),
    "rmos_runs": {"rmos_shared"},
    "rmos_worker": {"rmos_shared"},
    "rmos_advisory_store": {"rmos_shared"},
}
FOLDERS = {
    "rmos_shared": "shared",
    "rmos_runs": "producer",
    "rmos_worker": "worker",
    "rmos_advisory_store": "advisory_store",
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / FOLDERS[package] / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import hides what it imports"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_imports_only_what_it_may(package: str) -> None:
    files = sources(package)
    assert files
    for path in files:
        ours = imported(path) & (set(MAY_IMPORT) | set(FOLDERS.values()) | {"tests"})
        assert ours <= MAY_IMPORT[package] | {package}, path.name


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_nothing_is_imported_by_its_name_as_text(package: str) -> None:
    # A program named on a command line, or an app path, is no import; importlib would be one in disguise.
    for path in sources(package):
        calls = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"import_module", "__import__"}, path.name


def test_the_check_of_imports_sees_them_all(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import a.b\nfrom c.d import e\ndef f():\n    import g as h\nif TYPE_CHECKING:\n    from i import j\n"
    )
    assert imported(path) == {"a", "c", "g", "i"}
    path.write_text("from . import k\n")
    with pytest.raises(AssertionError, match="relative import"):
        imported(path)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_each_package_is_typed(package: str) -> None:
    assert resources.files(package).joinpath("py.typed").is_file()


def test_each_folder_holds_one_package() -> None:
    for package, folder in FOLDERS.items():
        held = [path.name for path in (ROOT / folder).iterdir() if path.name != "__pycache__"]
        assert held == [package]


def test_the_sample_ships_with_the_client(sample_requests: list[dict[str, object]]) -> None:
    text = resources.files("rmos_runs").joinpath("samples/create_runs.ndjson").read_text()
    assert [json.loads(line) for line in text.splitlines()] == sample_requests
