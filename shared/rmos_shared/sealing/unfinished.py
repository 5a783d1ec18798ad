"""Runs that jobs are still at: what was published of them may yet be told of."""

from __future__ import annotations

import re
from datetime import datetime

from rmos_shared.auditlog.log import SLACK
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.tasks.table import ATTACH, CREATE, SUGGEST

#: A partition's file, a review's or an attempt's: the run that it is of.
_RUN = re.compile(
    r"(?:_reviews/|_attempts/)?\d{4}-\d\d-\d\d/"
    r"([A-Za-z0-9][A-Za-z0-9_-]{0,127}?)(?:_advisory_|\.json|/)"
)
_TOPICS = (CREATE.topic, SUGGEST.topic, ATTACH.topic)


class UnfinishedRuns:
    """Asks the ledger, once for each run."""

    def __init__(self, ledger: JobLedger) -> None:
        """Ask ``ledger``."""
        self._ledger = ledger
        #: When the first of the jobs that are under way was accepted; None where there is none.
        self._since: dict[str, datetime | None] = {}

    def may_still_tell(self, key: str, published_at: datetime) -> bool:
        """Say whether a job is under way that may have published ``key`` then, and tells of it at its end.

        Its worker was killed between the two, or the broker was away. What lay there before a job was
        accepted is not of that job, which may be paused, or wait for the advisory store, for weeks.
        """
        match = _RUN.match(key)
        if match is None:
            return False
        run_id = match[1]
        if run_id not in self._since:
            jobs = (self._ledger.job_about(topic, run_id) for topic in _TOPICS)
            pending = [job.accepted_at_utc for job in jobs if job is not None and job.state.pending]
            self._since[run_id] = min(pending, default=None)
        since = self._since[run_id]
        return since is not None and since - SLACK <= published_at
