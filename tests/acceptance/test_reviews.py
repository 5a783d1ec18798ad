"""What a reviewer does at the command line: look, judge one, judge many, hear of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from rmos_runs.cli.main import app
from rmos_runs.local.home import Home
from rmos_runs.operations.identity import current_identity
from rmos_shared.advisories.model import AdvisoryAsset
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import InvalidRequest, NumberDiffers
from rmos_shared.runs.model import RunArtifact
from rmos_worker.explainers.feasibility import FeasibilityExplainer
from rmos_worker.explainers.rules import load_rules
from support.records import NOON, make_link, make_run
from support.runs import Runs
from support.stores import local_store
from support.terminal import Terminal

#: Where nobody answers: reviews need no broker, and their words are missed only by the page.
AWAY = "redis://127.0.0.1:1/0"
NOWHERE = {"RMOS_BROKER_URL": AWAY, "RMOS_ADVISORY_URL": "http://127.0.0.1:1"}
FEASIBILITY = {"rules_triggered": ["F010"], "risk_level": "YELLOW"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Home(tmp_path / "home").init_store()
    return tmp_path / "home"


@pytest.fixture
def log(home: Path) -> Runs:
    return Runs(local_store(home / "runs"))


@pytest.fixture
def runs(log: Runs) -> list[RunArtifact]:
    """Three runs whose explanations wait: two YELLOW ones of a router, a RED one of a saw."""
    made = [
        make_run(
            tool_id=tool,
            decision={"risk_level": risk, "score": 40, "warnings": ["thin floor"]},
            feasibility=FEASIBILITY,
            hashes={"feasibility_sha256": canonical_sha256(FEASIBILITY)},
            meta={"machine_id": "cnc-2", "parent_run_id": "01a20d3c3a8b73898836cc2b6ecc4ed6"},
        )
        for tool, risk in (("router:a", "YELLOW"), ("router:b", "YELLOW"), ("saw:c", "RED"))
    ]
    log.writer.put_runs(made)
    for run in made:
        log.writer.attach(make_link(run, approved=False, reviewed_by=None, reason="YELLOW is for a person"))
    return made


def rmos(home: Path, *words: str, **env: str) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(home)], env=NOWHERE | env, prog_name="rmos")


def told(home: Path, *words: str, code: int = 0) -> Any:
    done = rmos(home, *words, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_filters_choose_what_is_listed(home: Path, runs: list[RunArtifact]) -> None:
    def listed(*words: str) -> set[str]:
        return {row["run_id"] for row in told(home, "reviews", "list", *words)}

    first, second, saw = (run.run_id for run in runs)
    assert listed() == {first, second, saw}
    assert listed("--risk", "yellow") == {first, second}
    assert listed("--tool-prefix", "saw:") == {saw}
    assert listed("--date-from", "2026-08-02") == set()
    assert listed("--age", "24", "--date-to", "2026-08-01") == {first, second, saw}
    assert listed("--age", "999999") == set()
    (row,) = told(home, "reviews", "list", "--risk", "RED")
    assert (row["risk"], row["tool"], row["kind"]) == ("RED", "saw:c", "explanation")


def test_a_verdict_bears_the_account_and_tells_of_the_others(home: Path, runs: list[RunArtifact]) -> None:
    names = (runs[0].run_id, "adv1")
    mine = str(current_identity("Ana"))
    assert mine.endswith(" (as Ana)")
    first = told(home, "reviews", "reject", *names, "--reason", "unclear", "--note", "which floor?")
    assert (first["reviewed_by"], first["others"], first["counts"]) == (str(current_identity()), [], True)
    second = rmos(home, "reviews", "approve", *names, "--reason", "checked", "--as", "Ana")
    assert second.exit_code == 0, second.output
    assert f"approved by {mine} as checked: advisory adv1" in second.stdout
    assert "The run itself stays as the server judged it:" in second.stdout
    assert "rejected by" in second.stdout.split("also judged, ")[1]
    assert "All are kept; yours is the last and counts." in second.stdout

    rows = told(home, "reviews", "history", names[0])
    assert [(row["verdict"], row["reason"], row["counts"]) for row in rows] == [
        ("rejected", "unclear", False),
        ("approved", "checked", True),
    ]
    shown = rmos(home, "runs", "show", names[0]).stdout
    assert f"explanation: approved by {mine} as checked (its words, not the cut)" in shown
    assert "before that, " in shown
    (advisory,) = told(home, "runs", "show", names[0])["advisory_inputs"]
    assert [review["approved"] for review in advisory["reviews"]] == [False, True]
    entries = told(home, "runs", "history", names[0])
    assert [e["details"]["reason"] for e in entries if e["what"].startswith("review.")] == [
        "unclear",
        "checked",
    ]


def test_a_reason_of_the_other_verdict_is_refused(home: Path, runs: list[RunArtifact]) -> None:
    refused = rmos(home, "reviews", "approve", runs[0].run_id, "adv1", "--reason", "wrong")
    assert isinstance(refused.exception, InvalidRequest)
    assert "accurate, checked" in str(refused.exception)
    assert told(home, "reviews", "history", runs[0].run_id) == []


def test_one_page_has_all_that_a_reviewer_needs(
    home: Path, log: Runs, advisory_store: Callable[..., Any]
) -> None:
    run = make_run(
        decision={"risk_level": "YELLOW", "score": 40, "block_reason": None, "warnings": ["thin floor"]},
        feasibility=FEASIBILITY,
        hashes={"feasibility_sha256": canonical_sha256(FEASIBILITY)},
        request_id="req-7",
        meta={"machine_id": "cnc-2", "parent_run_id": "01a20d3c3a8b73898836cc2b6ecc4ed6"},
    )
    words = FeasibilityExplainer(load_rules()).explain(run, "full")
    asset = AdvisoryAsset.read(
        {
            "asset_id": "adv1",
            "asset_type": "analysis",
            "created_at_utc": NOON,
            "source": "ai_analysis",
            "provider": words.engine_id,
            "model": words.engine_version,
            "prompt": "Explain.",
            "content_hash": canonical_sha256(words.dump()),
            "suggestion_data": words.dump(),
            "confidence": words.confidence,
        }
    )
    log.writer.put_run(run)
    waits: dict[str, Any] = {"approved": False, "reviewed_by": None, "summary": words.summary}
    log.writer.attach(make_link(run, "adv1", advisory_sha256=asset.content_hash, **waits))
    log.writer.attach(make_link(run, "adv2", **waits))
    store = advisory_store(advisory_token="open-sesame")
    headers = {"Authorization": "Bearer open-sesame", "Content-Type": "application/json"}
    for name in ("adv1", "adv2"):
        body = asset.model_copy(update={"asset_id": name}).to_bytes()
        url = f"{store.url}/api/advisory/assets/{name}"
        httpx.put(url, content=body, headers=headers, trust_env=False).raise_for_status()

    env = {"RMOS_ADVISORY_URL": store.url, "RMOS_ADVISORY_TOKEN": "open-sesame"}
    page = rmos(home, "reviews", "show", run.run_id, **env).stdout
    (rule,) = words.triggered_rules
    for needed in (
        *(f"run {run.run_id}: OK, risk YELLOW, score 40", "warning: thin floor", "rules: F010"),
        *("request: req-7", "machine_id: cnc-2", "mode router", run.hashes.feasibility_sha256),
        *("explanation adv1: waits for a person", words.summary, rule.title, rule.meaning, rule.hint),
        *words.suggested_actions,
        f"rmos reviews approve {run.run_id} adv1 --reason accurate",
        f"rmos runs compare {run.run_id} --parent",
    ):
        assert needed, "the explainer said nothing"
        assert needed in page
    # The second link's hash is of other words than those that the store holds.
    assert "the advisory store holds other words" in page.split("explanation adv2")[1]

    shown = json.loads(rmos(home, "reviews", "show", run.run_id, "--json", **env).stdout)
    assert [one["words"] is None for one in shown["advisories"]] == [False, True]
    store.kill()
    page = rmos(home, "reviews", "show", run.run_id, **env).stdout
    assert page.count("only the summary can be shown: the advisory store does not answer") == 2


def test_many_are_judged_when_their_number_is_confirmed(
    home: Path, runs: list[RunArtifact], log: Runs
) -> None:
    chosen = ("reviews", "approve", "--risk", "YELLOW", "--reason", "accurate")
    planned = told(home, *chosen, "--dry-run")
    assert (planned["found"], planned["recorded"], planned["dry_run"], len(planned["sample"])) == (
        2,
        0,
        True,
        2,
    )
    refused = rmos(home, *chosen, "--yes-number", "3")
    assert isinstance(refused.exception, NumberDiffers)
    unasked = rmos(home, *chosen)
    assert (unasked.exit_code, "--yes-number 2" in unasked.output) == (2, True)
    assert len(told(home, "reviews", "list")) == 3, "nothing was judged so far"

    done = told(home, *chosen, "--yes-number", "2", "--note", "read them all")
    assert (done["found"], done["recorded"], done["judged_meanwhile"]) == (2, 2, 0)
    made = [review for run in runs for review in log.reader.reviews(run.run_id)]
    assert [(review.act_id, review.note) for review in made] == [(done["act_id"], "read them all")] * 2
    assert [row["tool"] for row in told(home, "reviews", "list")] == ["saw:c"]
    assert told(home, *chosen, "--yes-number", "0")["found"] == 0


def test_many_are_judged_on_a_terminal_only_after_their_number_is_typed(
    home: Path, runs: list[RunArtifact]
) -> None:
    chosen = ("reviews", "reject", "--all", "--reason", "outdated")
    for typed, code in (("2", NumberDiffers.exit_code), (str(len(runs)), 0)):
        with Terminal(*chosen, home=home, width=120, RMOS_BROKER_URL=AWAY) as terminal:
            terminal.wait_for(lambda screen: "Type their number" in screen)
            terminal.press(f"{typed}\n".encode())
            assert terminal.end() == code, terminal.output
            shown = terminal.screen
    assert f"would be rejected: {len(runs)}" in shown
    assert f"{len(runs)} advisories will be rejected. Type their number to go on" in shown
    assert f"rejected: {len(runs)} of {len(runs)}, act " in shown
    assert told(home, "reviews", "list") == []


@pytest.mark.parametrize(
    "words",
    [
        ("approve",),
        ("approve", "--reason", "accurate"),
        ("reject", "--all"),
        ("approve", "RUN"),
        ("approve", "RUN", "adv1", "--risk", "RED"),
        ("approve", "RUN", "adv1", "--yes-number", "1"),
    ],
)
def test_what_is_meant_must_be_said(home: Path, runs: list[RunArtifact], words: tuple[str, ...]) -> None:
    asked = [runs[0].run_id if word == "RUN" else word for word in words]
    done = rmos(home, "reviews", *asked)
    assert done.exit_code == 2 or isinstance(done.exception, InvalidRequest)
    assert len(told(home, "reviews", "list")) == len(runs)
