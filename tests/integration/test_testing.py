"""What services test with: the recording client checks as the real one does, and the pipeline is real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rmos_runs import RunsClient
from rmos_runs.errors import InvalidRequest
from rmos_runs.ids import new_run_id
from rmos_runs.testing import RecordingClient, running_pipeline

REQUEST = {"request_id": "req-1", "mode": "saw", "tool_id": "saw:veneer_160"}


def test_the_recording_client_answers_as_the_real_one(broker_url: str) -> None:
    request = {**REQUEST, "run_id": new_run_id()}
    recording = RecordingClient()
    with RunsClient.connect(broker_url=broker_url) as client:
        real, kept = client.create_run(request, explain=True), recording.create_run(request, explain=True)
    assert (kept.run_id, kept.missing, kept.repeat) == (real.run_id, real.missing, real.repeat)
    assert (kept.explain_job_id is None) is (real.explain_job_id is None)
    assert recording.requests == [request]


def test_the_recording_client_refuses_what_the_real_one_refuses() -> None:
    recording = RecordingClient()
    with pytest.raises(InvalidRequest, match="status"):
        recording.create_run({**REQUEST, "status": "FINE"})
    assert recording.requests == []


def test_a_pipeline_does_a_job_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    with running_pipeline(tmp_path / "home") as url, RunsClient.connect(broker_url=url) as client:
        receipt = client.create_run({**REQUEST, "run_id": new_run_id()}, explain=True)
        record = client.wait(receipt, timeout=60)
        assert record.state == "done"
    assert not (tmp_path / "home/up.json").exists()
