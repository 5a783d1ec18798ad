from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_shared.advisories.model import Explanation, TriggeredRule, Verdict
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import SettingsInvalid
from rmos_shared.runs.model import Decision, Hashes, Outputs, RiskLevel, RunArtifact, RunRequest, Status
from rmos_shared.settings.worker import WorkerSettings
from rmos_shared.telemetry.events import PolicyFailed
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from rmos_worker.policies.base import ApprovalPolicy
from rmos_worker.policies.choice import POLICIES, policy_named
from rmos_worker.policies.fail_closed import FailClosed
from rmos_worker.policies.green_auto import GreenAutoPolicy
from rmos_worker.policies.manual import ManualPolicy
from rmos_worker.policies.unsafe import UnsafeApproveAll
from support.events import events_in

EXPLAINER = FeasibilityExplainer(load_rules())


def run_of(
    *,
    risk: str = "GREEN",
    status: str = "OK",
    reason: str | None = None,
    feasibility: dict[str, Any] | None = None,
) -> RunArtifact:
    feasibility = {"rules_triggered": []} if feasibility is None else feasibility
    return RunArtifact(
        run_id="run-1",
        created_at_utc=datetime(2026, 8, 1, tzinfo=UTC),
        mode="router",
        tool_id="router:endmill_6mm",
        status=Status(status),
        request_summary={},
        feasibility=feasibility,
        decision=Decision(risk_level=RiskLevel(risk), block_reason=reason),
        hashes=Hashes(feasibility_sha256=canonical_sha256(feasibility)),
        outputs=Outputs(),
        meta={},
    )


def run_of_sample(row: dict[str, Any]) -> RunArtifact:
    request = RunRequest.read(row)
    assert request.status is not None
    decision = Decision.read(request.decision.dump())
    return run_of(status=request.status, feasibility=request.feasibility).model_copy(
        update={"decision": decision}
    )


GREEN = run_of()
EXPLAINED = EXPLAINER.explain(GREEN, "full")


def decide(run: RunArtifact) -> Verdict:
    return GreenAutoPolicy().decide(run, EXPLAINER.explain(run, "full"))


@pytest.mark.parametrize(
    "feasibility",
    [
        {"rules_triggered": []},
        {"rules_triggered": [], "risk_level": "GREEN", "blocking": False},
        {"rules_triggered": ["F012"]},
        {"risk_level": "green"},
        {},
    ],
)
def test_green_is_approved_by_the_system(feasibility: dict[str, Any]) -> None:
    verdict = decide(run_of(feasibility=feasibility))
    assert verdict == Verdict(
        policy_id="policy_b",
        policy_version="1",
        approved=True,
        reviewed_by="system:auto_explanation_green",
        reason="risk GREEN, nothing unknown",
    )


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        *((run_of(risk=risk), f"risk {risk}") for risk in RiskLevel if risk is not RiskLevel.GREEN),
        *((run_of(status=status), f"status {status}") for status in Status if status is not Status.OK),
        (run_of(reason="clamp in the way"), "the decision gives a block reason"),
        *(
            (run_of(feasibility={"risk_level": level}), "feasibility gives another risk level")
            for level in ("RED", "", None, 0, ["GREEN"])
        ),
        *(
            (run_of(feasibility={"blocking": value}), "feasibility says blocking")
            for value in (True, "yes", 1, None)
        ),
        (run_of(feasibility={"rules_triggered": ["F999"]}), "a triggered rule is unknown"),
        (run_of(feasibility={"rules_triggered": [{}]}), "a triggered rule is unknown"),
        (run_of(feasibility={"rules_triggered": ["F022"]}), "a blocking rule was triggered"),
        (
            run_of(
                risk="RED", status="BLOCKED", feasibility={"risk_level": "RED", "rules_triggered": ["F022"]}
            ),
            "risk RED; status BLOCKED; a blocking rule was triggered",
        ),
    ],
)
def test_all_else_waits_for_a_person(run: RunArtifact, reason: str) -> None:
    verdict = decide(run)
    assert not verdict.approved
    assert verdict.reviewed_by is None
    assert verdict.reason == f"a person must decide: {reason}"


UNKNOWN_RULE = TriggeredRule(rule_id="X", known=False, level="UNKNOWN", title="X", meaning=None, hint=None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": "run-2"}, "the explanation is of another run"),
        ({"risk_level": "YELLOW"}, "the explanation gives another risk level"),
        ({"deterministic": False}, "the explanation is not deterministic"),
        ({"unknown_rules": ["X"]}, "a triggered rule is unknown"),
        ({"triggered_rules": [UNKNOWN_RULE]}, "a triggered rule is unknown"),
    ],
)
def test_an_explanation_that_is_in_doubt_waits_for_a_person(changes: dict[str, Any], reason: str) -> None:
    verdict = GreenAutoPolicy().decide(GREEN, EXPLAINED.model_copy(update=changes))
    assert (verdict.approved, verdict.reason) == (False, f"a person must decide: {reason}")


def test_an_advisory_that_is_not_ours_waits_for_a_person() -> None:
    verdict = GreenAutoPolicy().decide(GREEN, None)
    assert not verdict.approved
    assert verdict.reason == "a person must decide: the advisory is not our own explanation"


def test_the_green_samples_are_approved_and_no_other(sample_requests: list[dict[str, Any]]) -> None:
    runs = [run_of_sample(row) for row in sample_requests]
    approved = [run for run in runs if decide(run).approved]
    assert approved == [run for run in runs if run.decision.risk_level is RiskLevel.GREEN]
    assert len(approved) == 240


VALUES = st.recursive(
    st.sampled_from(["GREEN", "RED", "F022", "F012", "", 0, 1, None, True, False]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=2),
    max_leaves=5,
)
FEASIBILITY = st.dictionaries(
    st.sampled_from(["rules_triggered", "risk_level", "blocking", "details"]), VALUES, max_size=4
)


@settings(deadline=None)
@given(
    feasibility=FEASIBILITY,
    risk=st.sampled_from([risk for risk in RiskLevel if risk is not RiskLevel.GREEN]),
    status=st.sampled_from([*Status]),
    trusted=st.booleans(),
)
def test_no_run_is_approved_unless_green(
    feasibility: dict[str, Any], risk: RiskLevel, status: Status, *, trusted: bool
) -> None:
    run = run_of(risk=risk, status=status, feasibility=feasibility)
    # Not even where the explanation itself claims GREEN.
    explanation = EXPLAINER.explain(run, "full") if trusted else EXPLAINED
    assert not GreenAutoPolicy().decide(run, explanation).approved


@settings(deadline=None)
@given(feasibility=FEASIBILITY, status=st.sampled_from([*Status]))
def test_what_is_approved_is_green_throughout(feasibility: dict[str, Any], status: Status) -> None:
    run = run_of(status=status, feasibility=feasibility)
    if decide(run).approved:
        assert status is Status.OK
        assert feasibility.get("risk_level", "GREEN") == "GREEN"
        assert feasibility.get("blocking", False) is False
        assert feasibility.get("rules_triggered") in (None, [], "F012", ["F012"], ["F012"] * 2, ["F012"] * 3)


@pytest.mark.parametrize("explanation", [EXPLAINED, None])
def test_manual_approves_nothing(explanation: Explanation | None) -> None:
    verdict = ManualPolicy().decide(GREEN, explanation)
    assert (verdict.policy_id, verdict.approved, verdict.reviewed_by) == ("manual", False, None)


def test_the_bypass_warns_and_approves_everything(caplog: pytest.LogCaptureFixture) -> None:
    policy = UnsafeApproveAll()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    verdict = policy.decide(run_of(risk="RED", status="BLOCKED"), None)
    assert (verdict.approved, verdict.reviewed_by) == (True, "system:unsafe_approve_all")
    assert verdict.policy_id == "unsafe_approve_all"


class Broken:
    def decide(self, run: RunArtifact, explanation: Explanation | None) -> Verdict:
        msg = f"secret of {run.run_id} and {explanation}"
        raise KeyError(msg)


def test_a_policy_that_fails_leaves_it_to_a_person(caplog: pytest.LogCaptureFixture) -> None:
    verdict = FailClosed(Broken()).decide(GREEN, EXPLAINED)
    assert (verdict.policy_id, verdict.approved, verdict.reviewed_by) == ("fail_closed", False, None)
    assert verdict.reason == "a person must decide: Broken failed with KeyError"
    assert events_in(caplog) == [PolicyFailed(policy="Broken", run_id="run-1")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_policy_that_works_is_left_alone() -> None:
    inner = GreenAutoPolicy()
    assert FailClosed(inner).decide(GREEN, EXPLAINED) == inner.decide(GREEN, EXPLAINED)


def test_an_interrupt_is_no_verdict() -> None:
    class Interrupted:
        def decide(self, *_: object) -> Verdict:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FailClosed(Interrupted()).decide(GREEN, EXPLAINED)


def test_every_policy_of_the_settings_can_be_had_by_its_name() -> None:
    assert set(POLICIES) == set(get_args(WorkerSettings.model_fields["policy"].annotation))
    for name, policy_id in {
        "green_auto": "policy_b",
        "manual": "manual",
        "unsafe_approve_all": "unsafe_approve_all",
    }.items():
        assert policy_named(name).decide(GREEN, EXPLAINED).policy_id == policy_id


def test_a_policy_had_by_its_name_fails_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "manual", Broken)
    policy: ApprovalPolicy = policy_named("manual")
    assert policy.decide(GREEN, EXPLAINED).policy_id == "fail_closed"


def test_an_unknown_name_stops_the_start() -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_POLICY: must be one of green_auto, manual"):
        policy_named("yolo")
