"""Who calls, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from rmos_runs.gateway.errors import KeyRequired, RoleRequired
from rmos_runs.gateway.keys import KeyRing, Role

_HOST_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
#: What a proxy adds: behind one, every caller in the world seems to be on this machine.
_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever made a request."""

    #: With a person's decision, and in logs.
    name: str
    roles: frozenset[Role]

    def need(self, allowed: Iterable[Role]) -> None:
        """Raise ``RoleRequired`` unless the caller has one of these roles."""
        if not self.roles & {*allowed}:
            names = " or ".join(sorted(allowed))
            raise RoleRequired(f"this needs a key with the role {names}")


#: Without keys whoever can reach loopback is trusted with everything, as with the command line.
_LOOPBACK = Caller("loopback", frozenset(Role))


class Authentication:
    """Tells callers by their keys; without keys, by their being on this machine."""

    def __init__(self, ring: KeyRing) -> None:
        """Ask ``ring`` for keys."""
        self._ring = ring

    def caller(self, scope: Scope) -> Caller:
        """Return who made the request.

        Raises:
            KeyRequired: no key came, or an unknown or revoked one.
            RoleRequired: there are no keys, and the call does not come from a program on this machine.
        """
        headers = Headers(scope=scope)
        if not self._ring.configured:
            _must_be_local(scope, headers)
            return _LOOPBACK
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = self._ring.find(token.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise KeyRequired("a valid API key is required: Authorization: Bearer <key>, see `rmos keys`")
        return Caller(f"key:{key.name}", frozenset(key.roles))


def is_loopback(host: str) -> bool:
    """Say whether an address or name is this machine's own."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _must_be_local(scope: Scope, headers: Headers) -> None:
    client = scope.get("client")
    if client is None or not is_loopback(client[0]) or any(name in headers for name in _OF_PROXIES):
        raise RoleRequired("no API keys are configured, so only programs on this machine may call")
    # A page in a browser on this machine can call loopback too: by a name of its own, or from another origin.
    host, origin = headers.get("host", ""), headers.get("origin")
    if _name_in(host) not in _HOST_NAMES or (origin is not None and urlsplit(origin).netloc != host):
        raise RoleRequired("no API keys are configured, so web pages of other origins may not call")


def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
