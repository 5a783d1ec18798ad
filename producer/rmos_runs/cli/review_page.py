"""The page of a run that waits for a reviewer, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rmos_runs.cli.table import shown
from rmos_runs.cli.verdict import said
from rmos_runs.operations.advisory_words import as_explanation
from rmos_runs.operations.review_page import AdvisoryToJudge, ReviewPage
from rmos_shared.advisories.model import Explanation
from rmos_shared.canonical import encode
from rmos_shared.models.base import format_utc


def page_lines(page: ReviewPage, now: datetime) -> Iterator[str]:
    """Yield the run's own verdict, where it belongs, then each advisory with its words and verdicts."""
    verdict = page.run_verdict
    score = "" if verdict.decision.score is None else f", score {verdict.decision.score}"
    yield f"run {page.run_id}: {verdict.status}, risk {verdict.decision.risk_level}{score}"
    if verdict.decision.block_reason is not None:
        yield f"  because: {shown(verdict.decision.block_reason)}"
    for warning in verdict.decision.warnings:
        yield f"  warning: {shown(warning)}"
    yield f"  rules: {', '.join(map(shown, verdict.rules_triggered)) or 'none'}"
    yield f"  made {format_utc(page.created_at_utc)}, mode {page.mode}, tool {page.tool_id}"
    if page.request_id is not None:
        yield f"  request: {page.request_id}"
    for name, text in page.place.items():
        yield f"  {name}: {shown(text)}"
    for name, digest in page.hashes:
        if digest is not None:
            yield f"  {name}: {digest}"
    if not page.advisories:
        summary = "" if page.explanation_summary is None else f": {shown(page.explanation_summary)}"
        yield f"explanation: {page.explanation_status}{summary}"
    for advisory in page.advisories:
        yield ""
        yield from _advisory_lines(advisory, now)
    yield ""
    yield f"the record itself: rmos runs show {page.run_id}"
    if "parent_run_id" in page.place:
        yield f"what changed since its parent: rmos runs compare {page.run_id} --parent"


def _advisory_lines(advisory: AdvisoryToJudge, now: datetime) -> Iterator[str]:
    link = advisory.link
    hours = (now - link.created_at_utc) / timedelta(hours=1)
    state = f"waits for a person, for {hours:.1f} hours" if advisory.needs_review else "waits for nobody"
    yield f"{link.kind} {link.advisory_id}: {state}"
    yield f"  by {shown(link.engine_id)} {shown(link.engine_version)}, {format_utc(link.created_at_utc)}"
    policy = "approved" if link.approved else "left it to a person"
    yield f"  policy {shown(link.policy_id)} {shown(link.policy_version)} {policy}: {shown(link.reason)}"
    yield "  its words, which are what is judged, not the cut:"
    explanation = None if advisory.words is None else as_explanation(advisory.words)
    if explanation is not None:
        yield from _words(explanation)
    else:
        yield f"    {shown(link.summary)}"
        if advisory.words is not None:
            yield f"    {shown(encode(advisory.words).decode())}"
    if advisory.words_missing is not None:
        yield f"    only the summary can be shown: {shown(advisory.words_missing)}"
    for review in advisory.reviews:
        yield f"  {format_utc(review.created_at_utc)}: {said(review)}"
    names = f"{link.run_id} {link.advisory_id}"
    yield f"  to approve: rmos reviews approve {names} --reason accurate"
    yield f"  to reject:  rmos reviews reject {names} --reason wrong --note WHY"


def _words(explanation: Explanation) -> Iterator[str]:
    yield f"    {shown(explanation.summary)}"
    for rule in explanation.triggered_rules:
        yield f"    {shown(rule.rule_id)} ({rule.level}): {shown(rule.title)}"
        for text in (rule.meaning, rule.hint):
            if text is not None:
                yield f"      {shown(text)}"
    for action in explanation.suggested_actions:
        yield f"    to do: {shown(action)}"
    yield f"    confidence {explanation.confidence}"
