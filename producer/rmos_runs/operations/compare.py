"""What differs between two runs, as values and without prose: pure, and the same for the same records."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal, TypeVar

from rmos_runs.operations.changes import Change, changes
from rmos_shared.canonical import encode
from rmos_shared.models.base import Frozen, SafeId, Sha256, Utf8Text
from rmos_shared.runs.model import Hashes, Outputs, RiskLevel, RunRecord, Score, Status

#: Changed values of one kind that a comparison lists; ``truncated`` says that there are more.
MOST_CHANGES = 1_000
#: What a run came from is as little compared as its own id: against its parent it would always differ.
_DESCENT = frozenset({"parent_run_id", "parent_kind"})

Value = TypeVar("Value")


class StatusPair(Frozen):
    """The status of each run."""

    left: Status
    right: Status
    same: bool


class RiskPair(Frozen):
    """The risk level of each run."""

    left: RiskLevel
    right: RiskLevel
    same: bool


class ScorePair(Frozen):
    """The score of each run."""

    left: Score | None
    right: Score | None
    same: bool


class BlockingPair(Frozen):
    """Whether each run was blocked: by its status, or by its feasibility."""

    left: bool
    right: bool
    same: bool


class ListChange(Frozen):
    """What the right list has and the left one lacks, and the other way round; sorted."""

    added: list[Utf8Text]
    removed: list[Utf8Text]


class HashPair(Frozen):
    """One hash of each run; ``same`` is null where neither has it."""

    left: Sha256 | None
    right: Sha256 | None
    same: bool | None


class OutputSide(Frozen):
    """One output of one run; all null where there is none."""

    #: Inside the artifact, or in a file that the artifact names.
    place: Literal["inline", "file"] | None
    path: Utf8Text | None
    #: In UTF-8; known of what lies inside the artifact.
    size_bytes: int | None


class OutputPair(Frozen):
    """One output of each run; ``same`` is null where neither has it, or where no hash proves it."""

    left: OutputSide
    right: OutputSide
    same: bool | None


class OutputsPair(Frozen):
    """The outputs of each run."""

    gcode: OutputPair
    opplan: OutputPair
    preview_svg: OutputPair


class HashesPair(Frozen):
    """The hashes of each run."""

    feasibility_sha256: HashPair
    toolpaths_sha256: HashPair
    gcode_sha256: HashPair
    opplan_sha256: HashPair


class Comparison(Frozen):
    """Two runs held against one another."""

    left_id: SafeId
    right_id: SafeId
    #: Nothing below differs. Ids, times, parents, request ids and advisories are not compared.
    same: bool
    status: StatusPair
    risk: RiskPair
    score: ScorePair
    blocking: BlockingPair
    #: By id, as the server's feasibility names them.
    rules: ListChange
    #: ``block_reason``, ``warnings`` and ``details``.
    decision: list[Change]
    #: ``event_type``, ``mode``, ``tool_id``, and ``meta`` without the parent.
    context: list[Change]
    #: Of ``request_summary``.
    parameters: list[Change]
    hashes: HashesPair
    outputs: OutputsPair
    #: There are more changes of a kind than are listed.
    truncated: bool


def compare(left: RunRecord, right: RunRecord) -> Comparison:
    """Return what differs. The order of keys does not count, nor does that of rules."""
    status = StatusPair(left=left.status, right=right.status, same=left.status is right.status)
    risks = left.decision.risk_level, right.decision.risk_level
    risk = RiskPair(left=risks[0], right=risks[1], same=risks[0] is risks[1])
    scores = left.decision.score, right.decision.score
    score = ScorePair(left=scores[0], right=scores[1], same=encode(scores[0]) == encode(scores[1]))
    blocks = _is_blocked(left), _is_blocked(right)
    blocking = BlockingPair(left=blocks[0], right=blocks[1], same=blocks[0] is blocks[1])
    rules = _list_change(rule_ids(left), rule_ids(right))
    decision, more_decision = _bounded(changes(_decision(left), _decision(right)))
    context, more_context = _bounded(changes(_context(left), _context(right)))
    parameters, more_parameters = _bounded(changes(left.request_summary, right.request_summary))
    hashes = {name: _hash_pair(left, right, name) for name in Hashes.model_fields}
    outputs = {name: _output_pair(left, right, name) for name in OutputsPair.model_fields}
    lists: list[Iterable[object]] = [rules.added, rules.removed, decision, context, parameters]
    return Comparison(
        left_id=left.run_id,
        right_id=right.run_id,
        same=not any(lists)
        and all((status.same, risk.same, score.same, blocking.same))
        and all(pair.same is not False for pair in hashes.values())
        and all(pair.left == pair.right and pair.same is not False for pair in outputs.values()),
        status=status,
        risk=risk,
        score=score,
        blocking=blocking,
        rules=rules,
        decision=decision,
        context=context,
        parameters=parameters,
        hashes=HashesPair(**hashes),
        outputs=OutputsPair(**outputs),
        truncated=more_decision or more_context or more_parameters,
    )


def rule_ids(run: RunRecord) -> list[str]:
    """Return the rules that judged a run, sorted, each once; one that is no text stands as its JSON."""
    listed = run.feasibility.get("rules_triggered")
    # A bare value is read as a list of one, as the explainer does.
    entries = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return sorted({entry if isinstance(entry, str) else encode(entry).decode() for entry in entries})


def _is_blocked(run: RunRecord) -> bool:
    return run.status is Status.BLOCKED or run.feasibility.get("blocking") is True


def _decision(run: RunRecord) -> dict[str, Any]:
    decision = run.decision
    return {
        "block_reason": decision.block_reason,
        "warnings": decision.warnings,
        "details": decision.details,
    }


def _context(run: RunRecord) -> dict[str, Any]:
    meta = {name: value for name, value in run.meta.items() if name not in _DESCENT}
    return {"event_type": run.event_type, "mode": run.mode, "tool_id": run.tool_id, "meta": meta}


def _list_change(left: list[str], right: list[str]) -> ListChange:
    return ListChange(added=sorted({*right} - {*left}), removed=sorted({*left} - {*right}))


def _bounded(all_changes: Iterable[Change]) -> tuple[list[Change], bool]:
    listed = list(islice(all_changes, MOST_CHANGES + 1))
    return listed[:MOST_CHANGES], len(listed) > MOST_CHANGES


def _hash_pair(left: RunRecord, right: RunRecord, name: str) -> HashPair:
    one, other = getattr(left.hashes, name), getattr(right.hashes, name)
    return HashPair(left=one, right=other, same=None if one is None and other is None else one == other)


def _output_pair(left: RunRecord, right: RunRecord, name: str) -> OutputPair:
    sides = _SIDES[name](left.outputs), _SIDES[name](right.outputs)
    digests = (getattr(run.hashes, f"{name}_sha256", None) for run in (left, right))
    return OutputPair(left=sides[0], right=sides[1], same=_same_output(*sides, *digests))


def _same_output(left: OutputSide, right: OutputSide, one: str | None, other: str | None) -> bool | None:
    if left.place is None and right.place is None:
        return None
    if left.place is None or right.place is None:
        return False
    return None if one is None or other is None else one == other


def _side(inline_bytes: int | None, path: str | None) -> OutputSide:
    if inline_bytes is not None:
        return OutputSide(place="inline", path=None, size_bytes=inline_bytes)
    return OutputSide(place=None if path is None else "file", path=path, size_bytes=None)


def _gcode(outputs: Outputs) -> OutputSide:
    text = outputs.gcode_text
    return _side(None if text is None else len(text.encode()), outputs.gcode_path)


def _opplan(outputs: Outputs) -> OutputSide:
    plan = outputs.opplan_json
    return _side(None if plan is None else len(encode(plan)), outputs.opplan_path)


def _preview_svg(outputs: Outputs) -> OutputSide:
    return _side(None, outputs.preview_svg_path)


_SIDES = {"gcode": _gcode, "opplan": _opplan, "preview_svg": _preview_svg}
