"""``runs.reexplain``: explain a run for a batch, unless the engine in use has done so already."""

from __future__ import annotations

from collections.abc import Sequence

from rmos_shared.advisories.model import AdvisoryLink, Explanation
from rmos_shared.batches.candidates import advisory_ids
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Claim, Finish
from rmos_shared.runs import layout as keys
from rmos_shared.runs.files import RunFiles, parse_link
from rmos_shared.runs.model import RunArtifact
from rmos_shared.store.base import Outcome
from rmos_shared.store.publication import Publication
from rmos_shared.tasks.payloads import ReexplainRun
from rmos_worker.handlers.base import each, read_payload
from rmos_worker.handlers.precedence import Precedence
from rmos_worker.handlers.suggest import SuggestHandler


class ReexplainHandler:
    """Explains runs as ``SuggestHandler`` does, and makes no second link for one run and engine version.

    Whatever level of detail the first link is at: its id is looked up at every level. Only somebody who asks
    for another level at that very moment can still have a second one made, and that one is theirs.
    """

    def __init__(self, suggest: SuggestHandler, files: RunFiles, precedence: Precedence) -> None:
        """Explain by ``suggest``; look for links among ``files``; ``precedence`` lets live jobs go first."""
        self._suggest = suggest
        self._files = files
        self._precedence = precedence

    def handle(self, claims: Sequence[Claim]) -> list[Finish | Exception]:
        """Explain and link each run."""
        return each(claims, self._reexplain)

    def _reexplain(self, claim: Claim) -> Finish:
        payload = read_payload(claim, ReexplainRun)
        self._precedence.wait()
        run = self._suggest.existing.get(payload.run_id)
        explanation = self._suggest.explainer.explain(run, payload.detail)
        found = self._link(run, explanation)
        if found is None:
            # Whatever ends this try from here on, the next one finds the link, and whose it is.
            return self._suggest.attach(claim, run, explanation)
        link, publication = found
        return Finish(
            claim.job_id,
            {
                "run_id": run.run_id,
                "advisory_id": link.advisory_id,
                "outcome": _outcome(link, claim).value,
                "approved": link.approved,
            },
            # Who published it may have been killed before it told of it.
            published=(publication,),
        )

    def _link(self, run: RunArtifact, explanation: Explanation) -> tuple[AdvisoryLink, Publication] | None:
        for advisory_id in advisory_ids(
            explanation.run_id,
            explanation.engine_id,
            explanation.engine_version,
            explanation.inputs_sha256,
        ).values():
            key = keys.link_key(run.date, run.run_id, advisory_id)
            data = self._files.get(key)
            if data is not None:
                return parse_link(key, data), Publication.of(key, data, Outcome.ALREADY_SAME)
        return None

    def on_dead(self, claim: Claim, failure: Failure) -> Sequence[Publication]:
        """Leave an attempt record, as for any explanation that failed for good."""
        return self._suggest.on_dead(claim, failure)


def _outcome(link: AdvisoryLink, claim: Claim) -> Outcome:
    """Say whose link it is: a job that was killed after publishing it finds its own, and counts it as new."""
    return Outcome.CREATED if link.request_id == claim.request_id else Outcome.ALREADY_SAME
