"""What makes spans, and the one that makes none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

#: Names of OpenTelemetry's semantic conventions, or ``rmos.``; values are ids, counts and names of ours.
Attributes = Mapping[str, str | int | bool]


class Kind(Enum):
    """Which side of a call or message a span is on."""

    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"


class Span(Protocol):
    """One piece of work under way."""

    @property
    def traceparent(self) -> str | None:
        """What makes other work part of this, in other processes too (W3C Trace Context)."""
        ...

    def end(
        self, attributes: Attributes | None = None, *, name: str | None = None, error: str | None = None
    ) -> None:
        """End it with what became known meanwhile; ``error`` is the class or status of a failure."""
        ...


class Traces(Protocol):
    """Makes spans. Nothing that it does raises, or waits for whoever collects them."""

    @property
    def exported(self) -> bool:
        """Whether anybody sees the spans; where nobody does, attributes need not be gathered."""
        ...

    def begin(
        self, name: str, kind: Kind, *, parent: str | None, attributes: Attributes | None = None
    ) -> Span:
        """Begin a span below ``parent``, a traceparent; without one it is the first of a new trace."""
        ...

    def close(self) -> None:
        """Hand over what is left, within seconds, and end."""
        ...


@dataclass(frozen=True, slots=True)
class UnseenSpan:
    """Hands on the place in a trace that it was given, so that a trace of others is not cut here."""

    traceparent: str | None

    def end(
        self, attributes: Attributes | None = None, *, name: str | None = None, error: str | None = None
    ) -> None:
        """Do nothing."""


class NoTraces:
    """Makes spans that nobody sees."""

    exported = False

    def begin(
        self,
        name: str,  # noqa: ARG002 - as in Traces, and so below
        kind: Kind,  # noqa: ARG002
        *,
        parent: str | None,
        attributes: Attributes | None = None,  # noqa: ARG002
    ) -> Span:
        """Return a span that hands on ``parent``."""
        return UnseenSpan(parent)

    def close(self) -> None:
        """Do nothing."""
