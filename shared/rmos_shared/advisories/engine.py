"""Which engine explains, and in which version of its words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine of explanations. An advisory's id derives from both, so other words need another version."""

    engine_id: str
    engine_version: str


#: The engine that ships: who asks what a batch would do, and the worker that does it, agree on it.
BUILT_IN = Engine("feasibility_explainer", "1")
