"""The filters of a list, as options of every command that chooses runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any

import typer

from rmos_runs.cli.context import DayOption
from rmos_shared.runs.model import ExplanationStatus, RiskLevel, Status
from rmos_shared.runs.query import RunFilter

_Text = Annotated[str | None, typer.Option()]


def _text(what: str) -> Any:
    return Annotated[str | None, typer.Option(help=what)]


#: By option, the field of ``RunFilter`` and how the option is read.
_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "date_from": ("date_from", DayOption),
    "date_to": ("date_to", DayOption),
    "status": ("status", Annotated[Status | None, typer.Option(case_sensitive=False)]),
    "mode": ("mode", _Text),
    "tool_id": ("tool_id", _Text),
    "tool_id_prefix": ("tool_id_prefix", _text("What the tool begins with.")),
    "risk": ("risk_level", Annotated[RiskLevel | None, typer.Option(case_sensitive=False)]),
    "event_type": ("event_type", _Text),
    "request_id": ("request_id", _Text),
    "session": ("session_id", _text("The run's session_id.")),
    "batch": ("batch_label", _text("The run's batch_label.")),
    "parent": ("parent_run_id", _text("The run's parent_run_id.")),
    "machine": ("machine_id", _text("The run's machine_id.")),
    "material": ("material_id", _text("The run's material_id.")),
    "explanation": (
        "explanation_status",
        Annotated[
            ExplanationStatus | None, typer.Option(case_sensitive=False, help="How far its explanation is.")
        ],
    ),
    "needs_review": (
        "needs_review",
        Annotated[
            bool | None,
            typer.Option("--needs-review/--needs-no-review", help="Whether an advisory waits for a person."),
        ],
    ),
}


def with_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each filter, in the place of its parameter ``choice``, a ``RunFilter``.

    The command raises ``InvalidRequest`` when a filter breaks the contract.
    """

    @wraps(command)
    def filtered(**words: Any) -> None:
        given = {field: _plain(words.pop(option, None)) for option, (field, _) in _OPTIONS.items()}
        command(choice=RunFilter.read(given, what="filter"), **words)

    signature = inspect.signature(command, eval_str=True)
    options = [
        Parameter(option, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for option, (_, kind) in _OPTIONS.items()
    ]
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "choice"]
    # typer reads the signature and the annotations.
    filtered.__signature__ = signature.replace(parameters=[*options, *own])  # type: ignore[attr-defined]
    filtered.__annotations__ = {one.name: one.annotation for one in (*options, *own)}
    return filtered


def _plain(value: Any) -> Any:
    return value.date().isoformat() if isinstance(value, datetime) else value
