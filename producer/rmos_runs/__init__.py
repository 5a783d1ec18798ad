"""Everything that puts work in or asks about it.

``from rmos_runs import RunsClient`` is all that an upstream service needs.
"""

from __future__ import annotations

# Type checkers know it by its name; importing it from typing takes a sixth of the time of ``rmos --help``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from rmos_runs.async_client import AsyncRunsClient
    from rmos_runs.client import RunsClient
    from rmos_runs.receipt import Receipt

__all__ = ["AsyncRunsClient", "Receipt", "RunsClient"]


def __getattr__(name: str) -> object:
    # Loaded when first asked for: the ``rmos`` command and whoever only may enqueue start without them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rmos_runs import async_client, client, receipt  # noqa: PLC0415 - see above

    module = {"AsyncRunsClient": async_client, "RunsClient": client, "Receipt": receipt}[name]
    return getattr(module, name)
