"""The Python that the documents show is what a strict reader would accept: it passes mypy --strict."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def programs(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


SHOWN = {
    f"{document.relative_to(ROOT)}-{number}": program
    for document in DOCUMENTS
    for number, program in enumerate(programs(document), 1)
}


def test_there_is_python_to_check() -> None:
    assert len(SHOWN) >= 3


def test_all_python_that_is_shown_passes_mypy_strict(tmp_path: Path) -> None:
    # All at once, for mypy takes its time to read the libraries; each is a module by itself.
    files = []
    for number, program in enumerate(SHOWN.values()):
        files.append(tmp_path / f"shown_{number}.py")
        files[-1].write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    names = {file.stem: name for file, name in zip(files, SHOWN, strict=True)}
    told = re.sub(r"\S*?(shown_\d+)\.py", lambda found: names[found[1]], done.stdout)
    assert done.returncode == 0, told


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from rmos_runs import RunsClient\nRunsClient.connect().create_run(5)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(wrong)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert 'Argument 1 to "create_run"' in done.stdout


def test_no_page_for_users_imports_the_inside() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/how-to/*.md"), ROOT / "docs/tour.md"):
        assert "import rmos_shared" not in page.read_text(), page.name
        assert "from rmos_shared" not in page.read_text(), page.name
