"""What a process says of itself at ``/livez``, and which processes are better started anew."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import cycle
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

#: Whatever proxy the environment names: our processes are on this machine, or beside it.
_DIRECT = build_opener(ProxyHandler({}))
_EVERY_SECONDS = 10.0
#: On loopback a process that lives answers at once; the others must not wait for one that does not.
_ASK_SECONDS = 1.0
#: In a row. It has waited for its own time before it says so.
_MOST_STALLED = 2
#: In a row, so that one that is only starting, or on a machine that is overloaded, is left alone.
_MOST_SILENT = 12
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Health:
    """What one process answered."""

    alive: bool
    #: Its own word, or ``silent`` when it did not answer.
    state: str
    fields: Mapping[str, Any]

    @property
    def silent(self) -> bool:
        """Whether there was no answer that could be read."""
        return self.state == "silent"


def ask(url: str, *, timeout_seconds: float = _ASK_SECONDS) -> Health:
    """Ask the process at ``url``; never raises for what it answers, or does not."""
    try:
        try:
            with _DIRECT.open(f"{url}/livez", timeout=timeout_seconds) as answer:
                text, alive = answer.read(_MOST_BYTES), True
        except HTTPError as error:
            with error:
                text, alive = error.read(_MOST_BYTES), False
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                return Health(alive=False, state="silent", fields={"error": f"status {error.code}"})
        fields = dict(json.loads(text))
    except (URLError, OSError, ValueError, TypeError) as error:
        return Health(alive=False, state="silent", fields={"error": type(error).__name__})
    return Health(alive, str(fields.get("state", "alive")), fields)


class Probes:
    """Asks processes in turn, one at each call, and tells which of them has to be started anew.

    In turn and without a thread: whoever starts processes must have no other thread beside.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        ask: Callable[[str], Health] = ask,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to ask the processes at ``urls``, by name."""
        self._urls = urls
        self._ask = ask
        self._now = now
        self._turns = cycle(urls)
        self._due_at = dict.fromkeys(urls, now() + _EVERY_SECONDS)
        self._stalled = dict.fromkeys(urls, 0)
        self._silent = dict.fromkeys(urls, 0)

    def next(self, running: Mapping[str, int]) -> tuple[str, str] | None:
        """Ask whoever is due, if it is ``running``; return its name and what is wrong with it, or None."""
        name = next(self._turns, None)
        if name is None or self._now() < self._due_at[name]:
            return None
        self._due_at[name] = self._now() + _EVERY_SECONDS
        if name not in running:
            self._forget(name)
            return None
        health = self._ask(self._urls[name])
        self._stalled[name] = 0 if health.alive or health.silent else self._stalled[name] + 1
        self._silent[name] = self._silent[name] + 1 if health.silent else 0
        if self._stalled[name] < _MOST_STALLED and self._silent[name] < _MOST_SILENT:
            return None
        self._forget(name)
        return name, health.state

    def _forget(self, name: str) -> None:
        self._stalled[name] = self._silent[name] = 0
