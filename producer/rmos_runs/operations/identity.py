"""Who acts: as the system knows them, with the name that they give themselves beside it."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass, replace

from rmos_shared.errors import FieldProblem, InvalidRequest

_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at a machine, or an API key: what is kept with every decision and every act."""

    #: Name of the system account, from its number and never from the environment; of a key, its name.
    user: str
    #: The machine; empty for an API key.
    host: str = ""
    #: What they call themselves; nobody proves it.
    alias: str | None = None
    #: ``person`` at a command line, ``key`` over HTTP.
    kind: str = "person"

    def __str__(self) -> str:
        """Return it as records keep it: ``person:ops@cnc-1 (as Ben Ode)``, or ``key:erp``."""
        place = f"@{self.host}" if self.host else ""
        alias = f" (as {self.alias})" if self.alias else ""
        return f"{self.kind}:{self.user}{place}{alias}"


def current_identity(alias: str | None = None) -> Identity:
    """Return whose process this is: the real user of it and the name of its machine.

    ``alias`` is what the person calls themselves (``--as``): it stands beside the account, not in its place.

    Raises:
        InvalidRequest: the alias is no single line of up to 200 characters.
    """
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        # An account without a name, as containers have them.
        user = f"uid-{uid}"
    return with_alias(Identity(user, socket.gethostname()), alias)


def with_alias(identity: Identity, alias: str | None) -> Identity:
    """Return the identity with what the person calls themselves; raises as ``current_identity``."""
    if alias is None or not alias.strip():
        return identity
    text = alias.strip()
    if len(text) > _MOST_CHARACTERS or not text.isprintable():
        reason = f"must be one line of at most {_MOST_CHARACTERS} characters"
        raise InvalidRequest((FieldProblem("as", reason),), what="name")
    return replace(identity, alias=text)
