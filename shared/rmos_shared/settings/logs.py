"""What every process writes to its log, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rmos_shared.settings.base import Settings

_Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class LogSettings(Settings):
    """What every process writes to its log, and how."""

    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json`: an object a line; `console`: for a person's eyes; `auto`: `console` where "
        "standard error is a terminal, else `json`.",
    )
    log_level: Annotated[_Level | None, BeforeValidator(_upper)] = Field(
        None,
        description="Lowest level that is logged, `DEBUG`, `INFO`, `WARNING` or `ERROR`; none: INFO, or what "
        "Celery's `-l` says.",
    )
