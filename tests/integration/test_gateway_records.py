"""Runs against one another, over time and in packs, over HTTP."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from rmos_shared.ids import new_uuid7
from support.gateway import RUNS, GatewayProcess
from support.records import make_link, make_run
from support.runs import Runs

GCODE = "G21\nG90\nM30\n"


@pytest.fixture
def http(start_gateway: Callable[..., GatewayProcess]) -> Iterator[httpx.Client]:
    with start_gateway().client() as client:
        yield client


def test_two_runs_are_compared_and_diffed_without_gcode(http: httpx.Client, run_log: Runs) -> None:
    feasibility = {"rules_triggered": ["F001"]}
    left = make_run()
    right = make_run(decision={"risk_level": "RED", "score": 10}, outputs={})
    run_log.writer.put_runs([left, right])
    told = http.get(f"{RUNS}/{left.run_id}/compare", params={"with": right.run_id}).json()
    assert (told["left_id"], told["right_id"], told["same"]) == (left.run_id, right.run_id, False)
    assert (told["risk"]["left"], told["risk"]["right"]) == ("GREEN", "RED")
    diff = http.get(f"{RUNS}/diff", params={"left_id": left.run_id, "right_id": right.run_id}).json()
    assert (diff["diff_kind"], diff["truncated"]) == ("unified", False)
    assert '+    "risk_level": "RED"' in diff["preview"]
    assert GCODE not in diff["preview"]
    assert feasibility
    for query in ({}, {"left_id": left.run_id}, {"left_id": left.run_id, "right_id": "../x"}):
        assert http.get(f"{RUNS}/diff", params=query).status_code == 400
    missing = http.get(f"{RUNS}/diff", params={"left_id": left.run_id, "right_id": new_uuid7()})
    assert (missing.status_code, missing.json()["error"]) == (404, "RUN_NOT_FOUND")


def test_the_history_of_a_run_is_told(http: httpx.Client, run_log: Runs) -> None:
    run = make_run()
    run_log.writer.put_run(run)
    run_log.writer.attach(make_link(run))
    told = http.get(f"{RUNS}/{run.run_id}/history").json()
    assert told["run_id"] == run.run_id
    assert [entry["what"] for entry in told["entries"]] == ["run.created", "advisory.linked"]
    on_its_way = http.post(RUNS, json={"mode": "x"}).json()["run_id"]
    entries = http.get(f"{RUNS}/{on_its_way}/history").json()["entries"]
    assert [entry["what"] for entry in entries] == ["job.accepted"]
    assert http.get(f"{RUNS}/{new_uuid7()}/history").status_code == 404


def test_a_pack_is_the_same_bytes_and_proves_itself(
    http: httpx.Client, run_log: Runs, tmp_path: Path
) -> None:
    run = make_run()
    run_log.writer.put_run(run)
    first, again = (http.get(f"{RUNS}/{run.run_id}/pack.zip") for _ in range(2))
    assert first.headers["Content-Type"] == "application/zip"
    assert first.headers["Content-Disposition"] == f'attachment; filename="{run.run_id}.zip"'
    assert hashlib.sha256(first.content).digest() == hashlib.sha256(again.content).digest()
    zipfile.ZipFile(io.BytesIO(first.content)).extractall(tmp_path / "pack")
    subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST.sha256"], cwd=tmp_path / "pack", check=True)
    assert http.get(f"{RUNS}/{new_uuid7()}/pack.zip").status_code == 404


def test_a_selection_is_exported_and_shown_as_a_tree(http: httpx.Client, run_log: Runs) -> None:
    parent = make_run(meta={"session_id": "s", "batch_label": "b"})
    child = make_run(
        meta={"session_id": "s", "batch_label": "b", "parent_run_id": parent.run_id},
        decision={"risk_level": "RED"},
    )
    other = make_run()
    run_log.writer.put_runs([parent, child, other])
    archive = http.get(f"{RUNS}/export", params={"session_id": "s"})
    names = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert {name.split("/")[1] for name in names if name.startswith("runs/")} == {
        parent.run_id,
        child.run_id,
    }
    told = http.get(f"{RUNS}/batches", params={"session_id": "s"}).json()
    (session,) = told["tree"]["sessions"]
    assert (session["session_id"], session["total"]["worst_risk"], told["more"]) == ("s", "RED", False)
    family = http.get(f"{RUNS}/{child.run_id}/tree").json()
    assert {one["run_id"] for one in family["tree"]["sessions"][0]["batches"][0]["runs"]} == {
        parent.run_id,
        child.run_id,
    }
    assert http.get(f"{RUNS}/export", params={"colour": "red"}).status_code == 400
