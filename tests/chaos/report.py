"""What a run came to, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from chaos.audit import Audit
from chaos.faults import CUTS, Faults
from chaos.options import Options
from chaos.pulse import Sample, longest_stall, recovery_seconds

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run."""

    options: Options
    audit: Audit
    kills: dict[str, int]
    cuts: dict[str, int]
    troubles: dict[str, int]
    skipped: dict[str, int]
    killed_mid_call: int
    #: The longest time from a kill, and from a cut, to the next finished job.
    worst_recovery_seconds: float
    worst_recovery_after: str
    worst_cut_recovery_seconds: float
    worst_cut_recovery_after: str
    #: The longest time in which jobs were pending and none was finished, whatever the reason.
    longest_stall_seconds: float
    #: Whether the invariant held each time it was read while everything failed.
    always_invariant: bool
    readings: int
    seconds: float

    @property
    def sound(self) -> bool:
        found = self.audit
        return (
            found.invariant
            and self.always_invariant
            and not (found.lost or found.doubled or found.wrong or found.strange)
            and not (found.pending or found.runs_uncertain or found.malformed_lost)
        )

    def figures(self) -> dict[str, Any]:
        found = asdict(self.audit)
        counted = ("lost", "doubled", "wrong", "strange", "malformed_lost")
        figures: dict[str, Any] = {
            name: len(value) if name in counted else value
            for name, value in found.items()
            if name != "findings"
        }
        return {
            **asdict(self.options),
            **figures,
            "kills": sum(self.kills.values()),
            "kills_by_kind": self.kills,
            "producers_killed_mid_call": self.killed_mid_call,
            "cuts": sum(self.cuts.values()),
            "cuts_by_kind": self.cuts,
            "troubles": self.troubles,
            "skipped": self.skipped,
            "worst_recovery_seconds": round(self.worst_recovery_seconds, 2),
            "worst_recovery_after": self.worst_recovery_after,
            "worst_cut_recovery_seconds": round(self.worst_cut_recovery_seconds, 2),
            "worst_cut_recovery_after": self.worst_cut_recovery_after,
            "longest_stall_seconds": round(self.longest_stall_seconds, 2),
            "always_invariant": self.always_invariant,
            "readings": self.readings,
            "run_seconds": round(self.seconds, 1),
            "sound": self.sound,
            "details": list(self.details()),
        }

    def details(self) -> Iterator[str]:
        found = self.audit
        for name in ("lost", "doubled", "wrong", "strange", "malformed_lost"):
            cases = getattr(found, name)
            yield from (f"{name}: {case}" for case in cases[:_SHOWN])
        yield from (f"finding: {finding}" for finding in found.findings[:_SHOWN])

    def as_json(self) -> str:
        return json.dumps(self.figures(), separators=(",", ":"))

    def as_text(self) -> str:
        figures = self.figures()
        details = figures.pop("details")
        width = max(map(len, figures))
        lines = [f"{name:<{width}}  {_shown(value)}" for name, value in figures.items()]
        return "\n".join([*lines, *details])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in sorted(value.items())) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def make_report(
    options: Options, found: Audit, faults: Faults, samples: list[Sample], seconds: float
) -> Report:
    recoveries = [(recovery_seconds(samples, fault.at), fault) for fault in faults.happened]
    after_kill = [
        (told, fault.kind) for told, fault in recoveries if told is not None and fault.kind in faults.kills
    ]
    after_cut = [(told, fault.kind) for told, fault in recoveries if told is not None and fault.kind in CUTS]
    worst = max(after_kill, default=(0.0, "-"))
    worst_cut = max(after_cut, default=(0.0, "-"))
    return Report(
        options=options,
        audit=found,
        kills=dict(faults.kills),
        cuts=dict(faults.cuts),
        troubles=dict(faults.troubles),
        skipped=dict(faults.skipped),
        killed_mid_call=faults.killed_mid_call,
        worst_recovery_seconds=worst[0],
        worst_recovery_after=worst[1],
        worst_cut_recovery_seconds=worst_cut[0],
        worst_cut_recovery_after=worst_cut[1],
        longest_stall_seconds=longest_stall(samples),
        always_invariant=all(sample.invariant for sample in samples),
        readings=len(samples),
        seconds=seconds,
    )
