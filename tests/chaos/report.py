"""What a run came to, for people, for programs and for the documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chaos.audit import Audit
from chaos.faults import FAMILIES, FAMILY_OF, Faults
from chaos.options import Options
from chaos.post_journal import Posted
from chaos.pulse import Sample, longest_stall, recovery_seconds

_SHOWN = 20
#: Faults that last end with one of these, from which the recovery counts.
_ENDS = {"mount_back": "mounts", "damage_restored": "damage"}
_COUNTED = ("lost", "doubled", "wrong", "strange", "malformed_lost", "breaches")
_TITLES = {
    "kills": "kills and deploys",
    "cuts": "connections cut, slowed, frozen, refused",
    "troubles": "lost notifications, advisory store failing",
    "homes": "`rmos up` killed, or started twice",
    "mounts": "runs directory unmounted, or another disk mounted",
    "channels": "rounds of garbage on Celery's control and event channels",
    "damage": "keys of the ledger of a wrong type for a while",
    "later": "jobs of a task that this version does not know",
    "gateway": "gateway killed or stopped, its caller killed, connections between them cut, paused, refused",
}


@dataclass(frozen=True, slots=True)
class Recovery:
    """The longest time from a fault of a family to the next finished job."""

    seconds: float
    #: Which kind it came after.
    after: str


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run."""

    options: Options
    audit: Audit
    #: Faults by kind; malformed messages are in the audit.
    counts: Mapping[str, int]
    skipped: Mapping[str, int]
    killed_mid_call: int
    #: Posts that were under way when the gateway was killed, and failed.
    posts_killed: int
    #: The longest time from a kill of the gateway to its next answer; None when nothing was posted after one.
    gateway_back_seconds: float | None
    #: By family; none where no job was left to be finished after any of its faults.
    recoveries: Mapping[str, Recovery]
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
            and not any(getattr(found, name) for name in _COUNTED)
            and not (found.pending or found.runs_uncertain or found.posts_unanswered)
        )

    def _skipped(self) -> dict[str, int]:
        """Return what was skipped, malformed messages of all kinds as one."""
        told: Counter[str] = Counter()
        for kind, count in self.skipped.items():
            told[kind.partition(":")[0]] += count
        return dict(told)

    def by_kind(self, family: str) -> dict[str, int]:
        return {kind: self.counts[kind] for kind in FAMILIES[family] if self.counts.get(kind)}

    def figures(self) -> dict[str, Any]:
        found = asdict(self.audit)
        figures: dict[str, Any] = {
            name: len(value) if name in _COUNTED else value
            for name, value in found.items()
            if name != "findings"
        }
        families: dict[str, Any] = {}
        for family in _TITLES:
            families[family] = sum(self.by_kind(family).values())
            families[f"{family}_by_kind"] = self.by_kind(family)
        return {
            **{name: value for name, value in asdict(self.options).items() if name != "counts"},
            **figures,
            **families,
            "producers_killed_mid_call": self.killed_mid_call,
            "posts_killed": self.posts_killed,
            "gateway_back_seconds": self.gateway_back_seconds and round(self.gateway_back_seconds, 2),
            "skipped": self._skipped(),
            "worst_recovery_seconds": {
                family: round(worst.seconds, 2) for family, worst in self.recoveries.items()
            },
            "worst_recovery_after": {family: worst.after for family, worst in self.recoveries.items()},
            "longest_stall_seconds": round(self.longest_stall_seconds, 2),
            "always_invariant": self.always_invariant,
            "readings": self.readings,
            "run_seconds": round(self.seconds, 1),
            "sound": self.sound,
            "details": list(self.details()),
        }

    def details(self) -> Iterator[str]:
        found = self.audit
        for name in _COUNTED:
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

    def as_markdown(self) -> str:
        """The table of ``docs/guarantees.md``."""
        found = self.audit
        rows = [
            ("jobs accepted, done, dead", f"{found.jobs_accepted:,}, {found.done:,}, {found.dead:,}"),
            ("artifacts, links, assets", f"{found.artifacts:,}, {found.links:,}, {found.assets:,}"),
            (
                "keys posted over HTTP, answered, stored",
                f"{found.posts:,}, {found.posts_answered:,}, {found.posts_stored:,}",
            ),
            (
                "of these, answered again; accepted by a try whose answer was lost",
                f"{found.posts_answered_again:,}; {found.posts_answered_late:,}",
            ),
            (
                "tries over HTTP that failed; under way when the gateway was killed",
                f"{sum(found.posts_failed.values()):,}: {_shown(found.posts_failed)}; {self.posts_killed:,}",
            ),
            (
                "longest time from a kill of the gateway to its next answer",
                "-" if self.gateway_back_seconds is None else f"{self.gateway_back_seconds:.1f} s",
            ),
            ("lost, doubled, wrong", f"{len(found.lost)}, {len(found.doubled)}, {len(found.wrong)}"),
            ("other promises broken", f"{len(found.breaches)}"),
        ]
        for family, title in _TITLES.items():
            kinds = self.by_kind(family)
            if kinds:
                told = ", ".join(f"{_words(kind, family)} {count}" for kind, count in kinds.items())
                rows.append((title, f"{sum(kinds.values())}: {told}"))
        rows += [
            ("malformed messages sent, kept verbatim", f"{found.malformed_sent:,}, {found.malformed_kept:,}"),
            ("messages of wrong shapes on the channels", f"{found.garbage:,}"),
            (f"invariant at {self.readings:,} readings", _held(self.always_invariant)),
            ("invariant at the end", _held(found.invariant)),
            ("found by the verifier of the audit log", _shown(found.log_findings)),
            (
                "longest time from a fault, or its end, to the next finished job, or answer of the gateway",
                ", ".join(
                    f"{family} {worst.seconds:.1f} s ({worst.after})"
                    for family, worst in self.recoveries.items()
                ),
            ),
            ("not done, for there was nothing to hit just then", _shown(self._skipped())),
        ]
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {told} |" for name, told in rows)])


def _held(true: bool) -> str:  # noqa: FBT001 - its only argument
    return "held" if true else "**broken**"


def _words(kind: str, family: str) -> str:
    return kind.removeprefix(f"{family.removesuffix('s')}_").replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in sorted(value.items())) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def make_report(
    options: Options, found: Audit, faults: Faults, samples: list[Sample], posted: Posted, *, seconds: float
) -> Report:
    recoveries: dict[str, Recovery] = {}
    for fault in faults.happened:
        family = _ENDS.get(fault.kind) or FAMILY_OF[fault.kind]
        # Jobs of others are finished while the gateway is away.
        by_answers = family == "gateway"
        told = posted.answered_after(fault.at) if by_answers else recovery_seconds(samples, fault.at)
        # A mount that goes away and a key that is damaged are not recovered from before they are back.
        lasts = family in _ENDS.values() and fault.kind not in _ENDS
        if told is not None and not lasts:
            worst = recoveries.get(family)
            if worst is None or told > worst.seconds:
                recoveries[family] = Recovery(told, fault.kind)
    return Report(
        options=options,
        audit=found,
        counts=dict(faults.counts),
        skipped=dict(faults.skipped),
        killed_mid_call=faults.killed_mid_call,
        gateway_back_seconds=max(
            filter(None, map(posted.answered_after, faults.gateway.killed_at)), default=None
        ),
        posts_killed=sum(map(posted.failed_over, faults.gateway.killed_at)),
        recoveries=recoveries,
        longest_stall_seconds=longest_stall(samples),
        always_invariant=all(sample.invariant for sample in samples),
        readings=len(samples),
        seconds=seconds,
    )
