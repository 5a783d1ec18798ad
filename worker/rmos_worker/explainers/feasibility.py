"""The built-in explainer: says which feasibility rules judged a run, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rmos_shared.advisories.engine import BUILT_IN, Engine
from rmos_shared.advisories.model import DetailLevel, Explanation, TriggeredRule
from rmos_shared.canonical import canonical_sha256
from rmos_shared.runs.model import RiskLevel, RunArtifact, Status
from rmos_worker.explainers.rules import Rule

#: No rule's id comes near this many characters; a longer one would drown the summary.
_LONGEST_ID = 64
_LONGEST_REASON = 300
#: The summary names this many rules and counts the rest.
_MOST_NAMED = 5

_Level = Literal["RED", "YELLOW", "UNKNOWN"]
_ORDER: dict[_Level, int] = {"RED": 0, "YELLOW": 1, "UNKNOWN": 2}
_NOUN: dict[_Level, str] = {"RED": "blocking rule", "YELLOW": "warning", "UNKNOWN": "unknown rule"}


class FeasibilityExplainer:
    """Explains a run by the rules that its feasibility lists under ``rules_triggered``.

    Pure and deterministic; safe to share between threads. The engine's output is stored verbatim
    (contract section 2), so anything may stand where the rules should: nothing of it makes ``explain``
    fail, and an unknown rule is reported as such.
    """

    def __init__(self, rules: Mapping[str, Rule], engine: Engine = BUILT_IN) -> None:
        """Prepare the words for ``rules``, by id; see ``load_rules``. ``engine`` names their version."""
        self.engine = engine
        self._known = {rule_id: _known(rule) for rule_id, rule in rules.items()}

    def explain(self, run: RunArtifact, detail: DetailLevel) -> Explanation:
        """Return the triggered rules, worst first and each once, in words.

        ``confidence`` is 1, halved for each of these that holds: a rule is unknown; ``rules_triggered``
        is missing or not a list; the risk level is not that of the worst triggered rule (GREEN without
        any). At detail ``summary`` the rules come without meaning and hint.
        """
        listed = run.feasibility.get("rules_triggered")
        triggered = self._look_up(listed)
        unknown = [item.rule_id for item in triggered if item.level == "UNKNOWN"]
        accounted = run.decision.risk_level == (triggered[0].level if triggered else RiskLevel.GREEN)
        doubts = (bool(unknown), not isinstance(listed, list), not accounted)
        return Explanation(
            run_id=run.run_id,
            detail=detail,
            engine_id=self.engine.engine_id,
            engine_version=self.engine.engine_version,
            inputs_sha256=canonical_sha256(
                {
                    "feasibility": run.feasibility,
                    "decision": run.decision.dump(),
                    "status": run.status.value,
                }
            ),
            deterministic=True,
            summary=_summary(run, triggered, accounted=accounted),
            risk_level=run.decision.risk_level.value,
            triggered_rules=[item.by_detail[detail] for item in triggered],
            suggested_actions=list(dict.fromkeys(item.action for item in triggered)),
            unknown_rules=unknown,
            confidence=0.5 ** sum(doubts),
        )

    def _look_up(self, listed: Any) -> list[_Triggered]:
        # A bare value is read as a list of one: a rule that the engine named is never passed over.
        entries = listed if isinstance(listed, list) else [] if listed is None else [listed]
        rule_ids = {_rule_id(entry) for entry in entries}
        return sorted(
            (self._known.get(rule_id) or _unknown(rule_id) for rule_id in rule_ids),
            key=lambda item: (_ORDER[item.level], item.rule_id),
        )


@dataclass(frozen=True, slots=True)
class _Triggered:
    """A rule made ready to be told, so that explaining a run validates none of its words again."""

    rule_id: str
    level: _Level
    mention: str
    action: str
    by_detail: Mapping[DetailLevel, TriggeredRule]

    @classmethod
    def of(cls, full: TriggeredRule, action: str) -> _Triggered:
        brief = full.model_copy(update={"meaning": None, "hint": None})
        mention = f"{full.title[0].lower()}{full.title[1:]} ({full.rule_id})"
        return cls(full.rule_id, full.level, mention, action, {"full": full, "summary": brief})


def _known(rule: Rule) -> _Triggered:
    by_detail = TriggeredRule(
        rule_id=rule.rule_id,
        known=True,
        level=rule.level,
        title=rule.title,
        meaning=rule.meaning,
        hint=rule.hint,
    )
    return _Triggered.of(by_detail, rule.action)


def _unknown(rule_id: str) -> _Triggered:
    by_detail = TriggeredRule(
        rule_id=rule_id,
        known=False,
        level="UNKNOWN",
        title="Unknown rule",
        meaning="The feasibility engine names a rule that this explainer does not know, so whether it "
        "warns or blocks cannot be said.",
        hint="Do not cut on the strength of this explanation; find out first what the rule found.",
    )
    return _Triggered.of(
        by_detail, "Ask whoever maintains the feasibility engine what the unknown rules mean for this cut."
    )


def _rule_id(entry: object) -> str:
    if isinstance(entry, str) and entry.strip() and entry.isprintable() and len(entry) <= _LONGEST_ID:
        return entry
    return f"not a rule id: {type(entry).__name__}"


def _summary(run: RunArtifact, triggered: list[_Triggered], *, accounted: bool) -> str:
    risk = run.decision.risk_level
    blocking = [item for item in triggered if item.level == "RED"]
    sentences = [f"{run.status}, risk {risk}: {_headline(run, triggered)}"]
    if triggered:
        sentences.append(_names(blocking or triggered))
    # Blocking rules say it better; without one, the recorded reason is all there is.
    if not blocking and (reason := _reason(run)):
        sentences.append(f"Recorded reason: {reason}")
    if triggered and not accounted:
        sentences.append(f"The rules on record do not account for risk {risk}")
    return ". ".join(sentences) + "."


def _headline(run: RunArtifact, triggered: list[_Triggered]) -> str:
    risk = run.decision.risk_level
    if triggered:
        let_through = triggered[0].level == "RED" and run.status is Status.OK
        return _counts(triggered) + (", yet the run was not blocked" if let_through else "")
    if risk in {RiskLevel.UNKNOWN, RiskLevel.ERROR}:
        return "the run could not be judged"
    if risk is not RiskLevel.GREEN:
        return "no feasibility rule on record accounts for it"
    if run.feasibility.get("rules_triggered") is None:
        return "no feasibility rules are on record"
    return "no feasibility rule was triggered"


def _reason(run: RunArtifact) -> str:
    reason = " ".join((run.decision.block_reason or "").split()).rstrip(".")
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + " [...]"


def _counts(triggered: list[_Triggered]) -> str:
    # Worst first, because the rules come so.
    numbers = Counter(item.level for item in triggered)
    *most, last = (f"{number} {_NOUN[level]}{'s' * (number > 1)}" for level, number in numbers.items())
    return f"{', '.join(most)} and {last}" if most else last


def _names(triggered: list[_Triggered]) -> str:
    mentions = [item.mention for item in triggered[:_MOST_NAMED]]
    if len(triggered) > _MOST_NAMED:
        mentions.append(f"and {len(triggered) - _MOST_NAMED} more")
    text = "; ".join(mentions)
    return text[0].upper() + text[1:]
