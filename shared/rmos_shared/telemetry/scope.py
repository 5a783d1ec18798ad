"""What this thread or task is busy with: ids for log lines, and a place in a trace for jobs and calls."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

#: W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """The ids of the work at hand; None where there is none."""

    job_id: str | None = None
    run_id: str | None = None
    request_id: str | None = None
    #: Where in a trace it belongs (W3C Trace Context).
    traceparent: str | None = None

    @property
    def ids(self) -> dict[str, str]:
        """The ids that are known, under the names that log lines have for them."""
        trace = None if self.traceparent is None else _TRACEPARENT.fullmatch(self.traceparent)
        known = {
            "job_id": self.job_id,
            "run_id": self.run_id,
            "request_id": self.request_id,
            "trace_id": None if trace is None else trace[1],
        }
        return {name: value for name, value in known.items() if value is not None}


_IDLE = Scope()
_SCOPE: ContextVar[Scope] = ContextVar("rmos_scope", default=_IDLE)


@contextmanager
def busy_with(scope: Scope) -> Iterator[None]:
    """Let what is logged, accepted and called in the block belong to ``scope``, and to no other."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def current_scope() -> Scope:
    """Return what this thread or task is busy with."""
    return _SCOPE.get()


def current_traceparent() -> str | None:
    """Return where in a trace the work at hand belongs; None outside of any.

    In a service of others that is where its own OpenTelemetry says, if it has loaded that. Nothing is
    imported for it, so whoever does without pays nothing.
    """
    return _SCOPE.get().traceparent or _traceparent_of_host()


def valid_traceparent(text: str | None) -> str | None:
    """Return ``text`` if it is a traceparent; None otherwise, for its standard says to leave others out."""
    return text if text and _TRACEPARENT.fullmatch(text) else None


def _traceparent_of_host() -> str | None:
    # By getattr, for another thread may be in the middle of importing it.
    current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None:
        return None
    context = current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
