"""The webhook endpoints of the settings: a TOML file, checked as a whole before a worker starts."""

from __future__ import annotations

import base64
import binascii
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, Field

from rmos_shared.errors import InvalidRequest, SettingsInvalid
from rmos_shared.ids import ENDPOINT_ID
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS, Subscription
from rmos_shared.models.base import Frozen, SingleLine
from rmos_worker.webhooks.addresses import Network

_PREFIX = "whsec_"
#: What Standard Webhooks asks of a secret.
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64
_MOST_FILE_BYTES = 1_048_576
_LAST_PORT = 65_535
_VARIABLE = "RMOS_WEBHOOKS_FILE"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One receiver. Its secrets are shown nowhere."""

    name: str
    url: str
    #: Base64, as Standard Webhooks writes them. A message is signed with each, so that one can take another's
    #: place.
    secrets: tuple[str, ...] = field(repr=False)
    events: tuple[str, ...]
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """All endpoints by name, and the networks that may be called besides public addresses."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    networks: tuple[Network, ...] = ()

    def subscriptions(self) -> list[Subscription]:
        """Return what the ledger must know of them."""
        return [Subscription(one.name, one.events, one.enabled) for one in self.endpoints.values()]


def load_webhooks(path: Path | None, environment: Mapping[str, str] = os.environ) -> WebhookConfig:
    """Read the file; no file, no endpoints.

    Raises:
        SettingsInvalid: naming what is wrong in it, never a secret.
    """
    if path is None:
        return WebhookConfig()
    try:
        with path.open("rb") as opened:
            data = opened.read(_MOST_FILE_BYTES)
        told = _File.read(tomllib.loads(data.decode()), what=str(path))
    except OSError as error:
        raise _invalid(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"{path} is no TOML ({type(error).__name__})") from None
    except InvalidRequest as error:
        raise _invalid(str(error)) from None
    endpoints: dict[str, Endpoint] = {}
    for one in told.endpoints:
        if one.id in endpoints:
            raise _invalid(f"endpoint {one.id}: there are two of this id")
        endpoints[one.id] = _endpoint(one, told, path.parent, environment)
    return WebhookConfig(endpoints, tuple(ip_network(text) for text in told.allowed_networks))


def _check_name(value: str) -> str:
    if ENDPOINT_ID.fullmatch(value) is None:
        msg = "must be 1 to 32 lower-case letters, digits or '-', and begin with no '-'"
        raise ValueError(msg)
    return value


def _check_host(value: str) -> str:
    host = value.removeprefix("*.")
    if not host or set(host) & set("*/:@ ") or host != host.lower():
        msg = "must be a host such as hooks.example.com, or *.example.com, in lower case and without a port"
        raise ValueError(msg)
    return value


def _check_network(value: str) -> str:
    ip_network(value)
    return value


def _check_event(value: str) -> str:
    if value not in WEBHOOK_EVENTS:
        msg = f"must be one of {', '.join(WEBHOOK_EVENTS)}"
        raise ValueError(msg)
    return value


class _Endpoint(Frozen):
    id: Annotated[str, AfterValidator(_check_name)]
    url: SingleLine
    secret_env: SingleLine | None = None
    #: Relative to the file itself.
    secret_file: SingleLine | None = None
    events: Annotated[list[Annotated[str, AfterValidator(_check_event)]], Field(min_length=1)]
    enabled: bool = True


class _File(Frozen):
    allowed_hosts: list[Annotated[str, AfterValidator(_check_host)]] = Field(default_factory=list)
    allowed_networks: list[Annotated[str, AfterValidator(_check_network)]] = Field(default_factory=list)
    allow_http: bool = False
    endpoints: list[_Endpoint] = Field(default_factory=list)


def _endpoint(told: _Endpoint, file: _File, beside: Path, environment: Mapping[str, str]) -> Endpoint:
    reason = _wrong_url(told.url, file)
    if reason is not None:
        raise _invalid(f"endpoint {told.id}: url {reason}")
    return Endpoint(
        told.id,
        told.url,
        _secrets(told, beside, environment),
        tuple(dict.fromkeys(told.events)),
        told.enabled,
    )


def _wrong_url(url: str, file: _File) -> str | None:
    try:
        parts = httpx.URL(url)  # as the client will read it: two readers may see two hosts
    except httpx.InvalidURL:
        return "is no address"
    schemes = {"https", "http"} if file.allow_http else {"https"}
    host = parts.host.rstrip(".")
    rules = (
        (parts.scheme in schemes, "must begin with https:// (http:// only with allow_http = true)"),
        (parts.port is None or 0 < parts.port <= _LAST_PORT, "has no such port"),
        (not parts.userinfo, "must hold no user name or password"),
        (url.isascii() and not set(url) & set(" \\#"), "must be ASCII, without blanks, '\\' or '#'"),
        (any(_covers(one, host) for one in file.allowed_hosts), "has a host that is not among allowed_hosts"),
    )
    return next((reason for holds, reason in rules if not holds), None)


def _covers(allowed: str, host: str) -> bool:
    return host == allowed or (
        allowed.startswith("*.") and host.endswith(allowed[1:]) and len(host) >= len(allowed)
    )


def _secrets(told: _Endpoint, beside: Path, environment: Mapping[str, str]) -> tuple[str, ...]:
    if (told.secret_env is None) == (told.secret_file is None):
        raise _invalid(f"endpoint {told.id}: needs secret_env or secret_file, one of the two")
    if told.secret_env is not None:
        where, text = f"the variable {told.secret_env}", environment.get(told.secret_env, "")
    else:
        where = f"the file {told.secret_file}"
        try:
            text = (beside / str(told.secret_file)).read_text("ascii")
        except (OSError, UnicodeDecodeError):
            text = ""
    secrets = tuple(text.split())
    if not secrets or not all(map(_is_secret, secrets)):
        raise _invalid(
            f"endpoint {told.id}: {where} must hold a secret of {_LEAST_SECRET_BYTES} to "
            f"{_MOST_SECRET_BYTES} bytes as {_PREFIX} and base64, or several with blanks between them"
        )
    return secrets


def _is_secret(text: str) -> bool:
    body = text.removeprefix(_PREFIX)
    try:
        size = len(base64.b64decode(body + "=" * (-len(body) % 4), validate=True))
    except (binascii.Error, ValueError):
        return False
    return _LEAST_SECRET_BYTES <= size <= _MOST_SECRET_BYTES


def _invalid(reason: Any) -> SettingsInvalid:
    return SettingsInvalid(f"{_VARIABLE}: {reason}")
