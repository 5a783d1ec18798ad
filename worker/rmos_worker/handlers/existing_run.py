"""Runs that must exist already; a run may be stored, on its way, or unknown."""

from __future__ import annotations

from rmos_shared.errors import RunNotFound, RunPending
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.reader import RunReader


class ExistingRuns:
    """Looks runs up for the jobs that need one."""

    def __init__(self, reader: RunReader, ledger: JobLedger) -> None:
        """Read with ``reader``; ask ``ledger`` about runs that are not stored yet."""
        self._reader = reader
        self._ledger = ledger

    def get(self, run_id: str) -> RunArtifact:
        """Return the run's artifact.

        Raises:
            RunPending: it is accepted and not stored yet; come again.
            RunNotFound: nobody has asked for such a run, or its creation is among the dead letters.
            CorruptArtifact: its file is damaged.
        """
        try:
            return self._reader.get_artifact(run_id)
        except RunNotFound:
            creation = self._ledger.job_about("create", run_id)
            if creation is not None and creation.state.pending:
                raise RunPending(run_id) from None
            # It may have been stored between the two looks.
            return self._reader.get_artifact(run_id)
