"""Faults of the gateway: the process, its connections to its callers, and the caller itself."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from chaos.census import GATEWAY, kill
from chaos.moment import await_intent
from chaos.system import System

GATEWAYS = (
    "kill_gateway",
    "gateway_deploy",
    "kill_caller",
    "gateway_cut",
    "gateway_cut_before_answer",
    "gateway_pause",
    "gateway_refuse",
)
#: How long a fault waits for the one before to be over: a gateway that starts has nothing under way.
_WELL_SECONDS = 8.0
#: From a line in the journal to the end of the call that follows it, on an idle machine.
_CALL_SECONDS = 0.02


class GatewayFaults:
    """Carries them out; each returns what it did in words, or None if it found nothing to hit."""

    def __init__(
        self, system: System, rng: random.Random, wait_for: Callable[[Callable[[], bool], float], bool]
    ) -> None:
        """``wait_for`` waits until something is so, at most so many seconds, while all else goes on."""
        self._system = system
        self._rng = rng
        self._wait_for = wait_for
        #: When the gateway was killed, by the monotonic clock.
        self.killed_at: list[float] = []

    def kill_gateway(self) -> str | None:
        self._await_post()
        pids = self._system.pids(GATEWAY)
        if not pids:
            return None
        self._system.doom(pids[0])
        self.killed_at.append(time.monotonic())
        kill(pids[0])
        return f"pid {pids[0]}"

    def gateway_deploy(self) -> str | None:
        self._await_post()
        pids = self._system.pids(GATEWAY, unasked=True)
        if not pids:
            return None
        self._system.ask_to_stop(pids[0], signal.SIGTERM)
        return f"pid {pids[0]}"

    def kill_caller(self) -> str | None:
        self._await_post()
        if not self._system.posts.alive:
            return None
        self._system.posts.kill()
        return "posts"

    def gateway_cut(self) -> str | None:
        self._await_post()
        return f"{self._system.gateway.cut()} connections"

    def gateway_cut_before_answer(self) -> str | None:
        self._system.gateway.cut_before_answer(self._rng.randint(3, 10))
        return "of any post"

    def gateway_pause(self) -> str | None:
        seconds = self._rng.uniform(1.0, 8.0)  # a caller's patience ends at five
        self._system.gateway.pause(seconds)
        return f"{seconds:.1f} s"

    def gateway_refuse(self) -> str | None:
        seconds = self._rng.uniform(0.5, 4.0)
        self._system.gateway.refuse(seconds)
        return f"{seconds:.1f} s"

    def _await_post(self) -> None:
        """Wait until a post is most likely under way, but not for ever."""
        self._wait_for(self._system.gateway_is_well, _WELL_SECONDS)
        await_intent(self._system.post_journal, self._system.posts)
        time.sleep(self._rng.random() * _CALL_SECONDS)
