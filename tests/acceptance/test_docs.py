"""The documents agree with the program. Run as a program, this writes the reference's tables anew."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import rmos_advisory_store
import rmos_runs
import rmos_shared
import rmos_worker
from rmos_runs.cli.exit_codes import EXIT_CODES
from rmos_runs.cli.jobs import ENDED_DEAD
from rmos_runs.cli.main import app
from rmos_runs.local.home import Home
from rmos_runs.local.processes import PROCESSES, Pipeline
from rmos_shared import settings
from rmos_shared.errors import RmosError
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.settings.base import Settings
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.settings.nightly import NightlySettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_shared.settings.webhooks import WebhookSettings
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.tasks.table import QUEUES
from rmos_shared.telemetry import events
from rmos_shared.telemetry.events import Event
from rmos_shared.telemetry.metrics import OF_BOTH, OF_STATUS, OF_WORKERS
from rmos_worker.celery_app.broker import celery_config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs/reference"
GUARANTEES = ROOT / "docs/guarantees.md"
GLOSSARY = ROOT / "docs/glossary.md"
COMPOSE = ROOT / "docker-compose.yml"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
#: Their Python is run beside the real processes, each block by itself.
PROGRAMS = (README, ROOT / "docs/how-to/enqueue.md", ROOT / "docs/how-to/webhooks.md")
ROLES: list[type[Settings]] = [
    BrokerSettings,
    ProducerSettings,
    StoreSettings,
    WebhookSettings,
    NightlySettings,
    WorkerSettings,
    AdvisoryStoreSettings,
    GatewaySettings,
    IndexSettings,
    LogSettings,
    AuditSettings,
    TimestampSettings,
]
SECRETS = {"RMOS_REDIS_PASSWORD", "RMOS_ADVISORY_TOKEN", "FLOWER_BASIC_AUTH"}


# The tables that are generated


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield each command of the program with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join(("rmos", *path, name)), command


def argument(parameter: Any) -> str:
    word = str(parameter.name).upper() + "..." * (parameter.nargs == -1)
    return word if parameter.required else f"[{word}]"


def command_table() -> str:
    rows = ["| command | options | does |", "|---|---|---|"]
    for name, command in commands(typer.main.get_command(app)):
        kinds: dict[str, list[Any]] = {"argument": [], "option": []}
        for parameter in command.params:
            kinds[parameter.param_type_name].append(parameter)
        words = " ".join([name, *map(argument, kinds["argument"])])
        options = ", ".join(
            f"`{'/'.join((*option.opts, *option.secondary_opts))}`"
            for option in kinds["option"]
            if option.name != "help"
        )
        does = " ".join(str(command.help).split("\n\n", 1)[0].split())
        rows.append(f"| `{words}` | {options} | {does} |")
    return "\n".join(rows)


def default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    words = {"gt": "above", "ge": "from", "le": "to"}
    bounds = {name: getattr(item, name) for item in field.metadata for name in words if hasattr(item, name)}
    return " ".join(
        f"{words[name]} {bounds[name]:g}" if bounds[name] < 1e6 else f"{words[name]} {bounds[name]}"
        for name in words
        if name in bounds
    )


def settings_tables() -> str:
    tables = []
    for role in ROLES:
        rows = [
            f"`{role.__name__}`: {str(role.__doc__).replace('``', '`')}",
            "",
            "| variable | default | allowed | meaning |",
            "|---|---|---|---|",
        ]
        for name in role.__annotations__:  # its own fields, not those of the roles that it includes
            if name != "model_config":
                field = role.model_fields[name]
                told = (
                    f"| `RMOS_{name.upper()}` | {default(field)} | {allowed(field)} | {field.description} |"
                )
                rows.append(told.replace("|  |", "| |"))
        tables.append("\n".join(rows))
    return "\n\n".join(tables)


def exit_code_table() -> str:
    rows = ["| code | meaning | errors |", "|---|---|---|"]
    errors: dict[int, list[str]] = {}
    for kind in error_classes():
        errors.setdefault(kind.exit_code, []).append(f"`{kind.code}`")
    for code, meaning in EXIT_CODES.items():
        names = ", ".join(sorted(set(errors.pop(code, []))))
        rows.append(f"| {code} | {meaning} | {names} |".replace("|  |", "| |"))
    assert not errors, f"exit codes that `rmos --help` does not tell: {errors}"
    return "\n".join(rows)


def events_table() -> str:
    rows = ["| event | level | fields | what happened |", "|---|---|---|---|"]
    for kind in sorted(event_classes(), key=lambda kind: kind.key):
        names = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
        meaning = " ".join(str(kind.__doc__).replace("``", "`").split())
        rows.append(f"| `{kind.key}` | {logging.getLevelName(kind.level)} | {names} | {meaning} |")
    return "\n".join(rows).replace("|  |", "| |")


def metrics_table() -> str:
    rows = ["| metric | kind | labels | exported by | meaning |", "|---|---|---|---|---|"]
    exporters = {"worker, gateway": OF_BOTH, "worker": OF_WORKERS, "gateway": OF_STATUS}
    for exporter, group in exporters.items():
        for metric in group:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {exporter} | {metric.help} |")
    return "\n".join(rows).replace("|  |", "| |")


def event_classes() -> list[type[Event]]:
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    return [kind for kind in kinds if hasattr(kind, "key")]


def error_classes() -> list[type[RmosError]]:
    for package in (rmos_shared, rmos_runs, rmos_worker, rmos_advisory_store):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # These are programs: they read the environment when they are imported.
            if module.name != "rmos_worker.celery_app.main" and "__main__" not in module.name:
                importlib.import_module(module.name)
    found: list[type[RmosError]] = []
    rest = [RmosError]
    while rest:
        kind = rest.pop()
        rest += kind.__subclasses__()
        if kind.__module__.startswith("rmos_"):
            found.append(kind)
    return found


#: What is generated, in a file of its own named after it.
GENERATED = {
    "commands": command_table,
    "settings": settings_tables,
    "exit codes": exit_code_table,
    "events": events_table,
    "metrics": metrics_table,
}


def page(name: str) -> Path:
    return REFERENCE / f"{name.replace(' ', '-')}.md"


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: generated -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", GENERATED)
def test_the_reference_tells_what_the_program_has(name: str) -> None:
    found = block(name).search(page(name).read_text())
    assert found, f"{page(name).name} has no block for {name}"
    assert found[2] == GENERATED[name]() + "\n", "run: python tests/acceptance/test_docs.py"


def test_every_event_has_a_key_of_its_own_and_is_reported_somewhere() -> None:
    keys = [kind.key for kind in event_classes()]
    assert len(keys) == len(set(keys))
    code = "".join(
        file.read_text()
        for package in (rmos_shared, rmos_runs, rmos_worker, rmos_advisory_store)
        for file in Path(package.__path__[0]).rglob("*.py")
        if file.name != "events.py"
    )
    assert [kind.__name__ for kind in event_classes() if not re.search(rf"\b{kind.__name__}\b", code)] == []


def test_every_settings_class_is_told() -> None:
    for module in pkgutil.iter_modules(settings.__path__, f"{settings.__name__}."):
        importlib.import_module(module.name)
    told, rest = set(), [Settings]
    while rest:
        role = rest.pop()
        rest += role.__subclasses__()
        if role.__module__.startswith(f"{settings.__name__}."):
            told.add(role)
    assert told - {Settings} == set(ROLES)


def test_every_setting_has_a_description() -> None:
    for role in ROLES:
        for name, field in role.model_fields.items():
            assert field.description, f"{role.__name__}.{name}"


def test_the_exit_code_of_a_dead_job_is_told() -> None:
    assert f"| {ENDED_DEAD} | job ended dead |" in exit_code_table()


# What the documents tell to do


def fenced(language: str, document: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def pipeline(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Run the main job's real processes; yields the environment in which shown programs find them."""
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RMOS_BROKER_URL", broker_url)
    with Pipeline(Home(tmp_path / "home")) as running:
        running.start()
        yield dict(os.environ)


def test_the_python_that_is_shown_runs_and_prints_what_it_says(pipeline: dict[str, str]) -> None:
    for document in PROGRAMS:
        assert fenced("python", document), f"{document.name} shows no program"
    programs = [program for document in PROGRAMS for program in fenced("python", document)]
    assert len(programs) >= 3
    for program in programs:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env=pipeline,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, f"{program}\n{ran.stderr}"
        assert ran.stdout.splitlines() == re.findall(r"#> (.*)$", program, re.MULTILINE)


def rmos_calls(document: Path) -> list[list[str]]:
    """Return the words of each ``rmos`` call that a shell block shows."""
    shown = "".join(fenced("console", document) + fenced("sh", document)).replace("\\\n", " ")
    found = re.findall(r"(?:^|\| |\$ |worker-create )(rmos .*)$", shown, re.MULTILINE)
    return [shlex.split(call, comments=True) for call in found]


def test_every_rmos_call_that_is_shown_exists() -> None:
    known = dict(commands(typer.main.get_command(app)))
    shown = [(document, call) for document in DOCUMENTS for call in rmos_calls(document)]
    assert shown
    for document, call in shown:
        if call[1:] == ["--help"]:
            continue
        name = " ".join(call[:3]) if " ".join(call[:3]) in known else " ".join(call[:2])
        assert name in known, f"{document.name}: {shlex.join(call)}"
        options = {
            word for parameter in known[name].params for word in parameter.opts + parameter.secondary_opts
        }
        unknown = {word for word in call if word.startswith("--")} - options - {"--help"}
        assert not unknown, f"{document.name}: {shlex.join(call)}"


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        shown = re.findall(r"`make ([a-z]+)[^`]*`", text) + re.findall(
            r"^(?:\$ )?make ([a-z]+)", text, re.MULTILINE
        )
        assert set(shown) <= targets, document.name


# The processes


def test_the_procfile_is_what_up_runs() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    told = {name: tuple(shlex.split(words)) for name, _, words in (line.partition(": ") for line in lines)}
    assert told == {name: ("python", *arguments) for name, arguments in PROCESSES.items()}
    assert list(told) == list(PROCESSES)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def test_compose_runs_the_processes_and_redis(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"redis", "runs-store", *PROCESSES}
    assert compose["services"]["runs-store"]["command"] == ["rmos", "store", "init"]
    for name in ("worker-create", "worker-advise", "worker-reexplain"):
        needs = compose["services"][name]["depends_on"]["runs-store"]
        assert needs == {"condition": "service_completed_successfully"}, "workers make no store"
    for name, arguments in PROCESSES.items():
        command = tuple(compose["services"][name]["command"])
        # What a container adds, such as a log level, comes after.
        assert command[: len(arguments) + 1] == ("python", *arguments), name


def test_compose_consumes_every_queue(compose: dict[str, Any]) -> None:
    consumed = []
    for service in compose["services"].values():
        command = service["command"]
        if "-Q" in command:
            consumed += command[command.index("-Q") + 1].split(",")
    assert sorted(consumed) == sorted(QUEUES)


def test_compose_keeps_redis_durable(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    command = " ".join(redis["command"])
    for flag in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction", "requirepass"):
        assert flag in command
    assert "redis:/data" in redis["volumes"]
    assert "ports" not in redis


def test_compose_has_no_secret_of_its_own(compose: dict[str, Any]) -> None:
    text = COMPOSE.read_text()
    used = re.findall(r"(?<!\$)\$\{([A-Z_]+)(:\?[^}]+)?\}", text)
    assert {name for name, _ in used} == SECRETS
    assert all(message for _, message in used), "a secret without ':?' may be empty"
    secret = re.compile(r"password|token|auth", re.IGNORECASE)
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
            assert not re.search(r"://[^/$]*:[^/$]*@", str(value)), name


def test_compose_watches_and_restarts_every_service(compose: dict[str, Any]) -> None:
    soft_shutdown = celery_config(BrokerSettings())["worker_soft_shutdown_timeout"]
    for name, service in compose["services"].items():
        if name == "runs-store":
            assert service["restart"] == "no", "it does its work and ends"
            continue
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"] is True, name
        assert "private" in service["networks"], name
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > (soft_shutdown if name.startswith("worker-") else 5), name
    assert compose["networks"]["private"]["internal"] is True


def test_compose_bounds_memory_and_logs_of_every_service(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        options = service["logging"]["options"]
        assert (service["logging"]["driver"], set(options)) == ("json-file", {"max-size", "max-file"}), name
    redis = compose["services"]["redis"]
    found = re.search(r"--maxmemory (\d+)gb", " ".join(redis["command"]))
    assert found, "without a bound of its own the server is ended in place of refusing"
    assert 2 * int(found[1]) <= int(redis["mem_limit"].removesuffix("g"))


def test_compose_opens_nothing_but_flower_and_the_gateway_on_loopback(compose: dict[str, Any]) -> None:
    opened = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(opened) == ["flower", "gateway"]
    assert all(port.startswith("127.0.0.1:") for ports in opened.values() for port in ports)


def test_compose_names_its_volumes(compose: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"])


def test_the_image_is_installed_from_the_lock_file_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "pip install --require-hashes -r requirements-runtime.lock" in text
    assert "pip install --require-hashes -r requirements-build.lock" in text
    assert "pip install --no-deps /dist/*.whl" in text
    assert "pip check" in text
    assert re.search(r"^USER (?!root|0)", text, re.MULTILINE)
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|TOKEN|SECRET)", text, re.MULTILINE)
    copies = re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE)
    copied = {word for line in copies for word in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}, "the builder gets what it needs"


# The documents among themselves


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = document.parent / place if place else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    named = re.findall(
        r"`((?:tests|shared|producer|worker|advisory_store|bench|docs)/[\w./-]+\.\w+)`", document.read_text()
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", GUARANTEES.read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_function_that_guarantees_name_is_there() -> None:
    text = GUARANTEES.read_text()
    named = re.findall(r"`([\w/]+\.(?:py|lua)):([\w.]+)`", text)
    assert named
    for file, name in named:
        word = name.rpartition(".")[2]
        assert re.search(rf"\b{word}\b", (ROOT / file).read_text()), f"{file}:{name}"


def test_guarantees_are_numbered_without_a_gap() -> None:
    numbers = [int(number) for number in re.findall(r"^### G(\d+)", GUARANTEES.read_text(), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_decisions_are_numbered_and_listed() -> None:
    records = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    listed = (ROOT / "docs/decisions/README.md").read_text()
    for record in records:
        assert f"({record.name})" in listed
        parts = re.findall(r"^## (.*)$", record.read_text(), re.MULTILINE)
        assert [part for part in parts if part != "Options considered"] == [
            "Context",
            "Decision",
            "Consequences",
        ]


def test_the_glossary_is_in_order_and_defines_each_term_once() -> None:
    terms = re.findall(r"^- \*\*([^*]+)\*\*: ", GLOSSARY.read_text(), re.MULTILINE)
    assert terms
    assert terms == sorted(set(terms), key=str.lower)


def test_the_version_is_in_the_changelog() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


# What no file of the project may hold

_NOT_OURS = {"__pycache__", "dist"}
#: Written in pieces, so that this file does not hold them itself.
_FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.\-}>~*])/(?:" + "wo" + "rk|ro" + r"ot)(?![\w-])"),
    "a registry's host": re.compile(
        "|".join(("py" + r"pi\.", "pythonho" + r"sted\.", r"\bghcr\.", r"docker\.i" + "o"))
    ),
}


def our_files() -> Iterator[Path]:
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            name for name in below if name not in _NOT_OURS and (not name.startswith(".") or name == ".ci")
        ]
        for name in names:
            # In a worktree .git is a file, and names where the repository is.
            if name != ".git" and not name.startswith(".coverage"):
                yield Path(folder) / name


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_holds_what_is_none_of_a_readers_business(what: str) -> None:
    found = []
    for file in our_files():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in _FORBIDDEN[what].finditer(text)]
    assert found == []


if __name__ == "__main__":
    for title, make in GENERATED.items():
        content = page(title).read_text()
        found = block(title).search(content)
        assert found, f"{page(title).name} has no block for {title}"
        page(title).write_text(f"{content[: found.start(2)]}{make()}\n{content[found.end(2) :]}")
