"""Which roles a route asks for."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request

from rmos_runs.gateway.exchange import caller_of
from rmos_runs.gateway.keys import Role


def needs(*roles: Role) -> Any:
    """Return the dependency of a route that changes something: the caller must have one of these roles."""

    # Not awaiting anything, and async all the same: FastAPI has a thread do what is not.
    async def check(request: Request) -> None:
        caller_of(request).need(roles)

    return Depends(check)


def reads(*roles: Role) -> Any:
    """Return the dependency of a route that reads: one of these roles, or ``audit``, which reads all."""
    return needs(*roles, Role.AUDIT)
