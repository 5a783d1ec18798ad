"""``rmos health``: do the processes do their work? For people, and for whoever watches containers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, print_rows
from rmos_runs.local.home import Home
from rmos_runs.local.liveness import Health, ask
from rmos_shared.errors import SettingsInvalid, TryLater
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.worker import WorkerSettings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - to ask what listens there


class Part(StrEnum):
    """Which processes can be asked."""

    WORKER = "worker"
    GATEWAY = "gateway"


_PORTS = {Part.WORKER: "RMOS_WORKER_HTTP_PORT", Part.GATEWAY: "RMOS_GATEWAY_PORT"}


class NotAlive(TryLater):
    """A process does not do its work, or does not answer."""

    code = "NOT_ALIVE"


def health(
    parts: Annotated[list[Part] | None, typer.Argument(help="Which to ask; all if left out.")] = None,
    *,
    timeout_seconds: Annotated[float, typer.Option("--timeout", min=0.1, max=60, help="Seconds.")] = 4.0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Ask workers and gateway whether they do their work.

    A worker that has jobs in line and a free slot, and takes none, is not alive, though it may answer a ping.

    Asks the port of RMOS_WORKER_HTTP_PORT or RMOS_GATEWAY_PORT where that is set, as in a container, else
    what runs on the home.

    With --json: a list of objects with `process`, `alive`, `state` and `detail`. Exits with 6 when one of
    them is not alive or does not answer.
    """
    urls = _urls(Home(home), parts or [])
    asked = {name: ask(url, timeout_seconds=timeout_seconds) for name, url in urls.items()}
    print_rows(_rows(asked), as_json=as_json, title="health")
    if bad := sorted(name for name, told in asked.items() if not told.alive):
        raise NotAlive(f"not alive: {', '.join(bad)}; see docs/operations.md")


def _rows(asked: Mapping[str, Health]) -> Iterator[dict[str, object]]:
    for name, told in asked.items():
        words = (
            f"{key} {_shown(value)}" for key, value in told.fields.items() if key not in {"alive", "state"}
        )
        yield {"process": name, "alive": told.alive, "state": told.state, "detail": ", ".join(words)}


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _urls(home: Home, parts: list[Part]) -> dict[str, str]:
    """Return where to ask, by the name of the process; without ``parts`` all that are known.

    Raises:
        SettingsInvalid: nobody says where one of the parts is, or where any is.
    """
    found = {part: _urls_of(home, part) for part in parts or [*Part]}
    if missing := [part for part, urls in found.items() if not urls and (parts or not any(found.values()))]:
        names = " or ".join(_PORTS[part] for part in missing)
        raise SettingsInvalid(
            f"nothing runs on {home.root} and {names} is not set: nobody says where the {missing[0].value} is"
        )
    return {name: url for urls in found.values() for name, url in urls.items()}


def _urls_of(home: Home, part: Part) -> Mapping[str, str]:
    if _PORTS[part] in os.environ:
        return {part.value: _own(part)}
    addresses = home.addresses()
    if addresses is None:
        return {}
    if part is Part.WORKER:
        return addresses.worker_urls
    return {} if addresses.gateway_url is None else {part.value: addresses.gateway_url}


def _own(part: Part) -> str:
    if part is Part.WORKER:
        worker = WorkerSettings.load()
        host, port = worker.worker_http_host, worker.worker_http_port
    else:
        gateway = GatewaySettings.load()
        host, port = gateway.gateway_host, gateway.gateway_port
    return f"http://{_EVERYWHERE.get(host, host)}:{port}"
