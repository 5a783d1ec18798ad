"""Packs of one run and of many, and the flat log, from real stores."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_runs.operations.export import Export, stream_export
from rmos_runs.operations.flat_log import COLUMNS, csv_log, flat_log, jsonl_log
from rmos_runs.operations.pack import stream_pack
from rmos_runs.operations.selection import Pages, select
from rmos_runs.operations.tree import TreeItem, tree
from rmos_shared.canonical import canonical_json, canonical_sha256, sha256_hex
from rmos_shared.errors import CorruptArtifact, InvalidRequest, RunNotFound
from rmos_shared.ids import new_uuid7
from rmos_shared.index.store_catalog import StoreCatalog
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.query import RunFilter
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.local import LocalStore
from support.records import HOUR, NOON, make_attempt, make_link, make_review, make_run
from support.runs import Runs
from support.stores import local_store

GCODE = "G21\nG90\nM30 ; ½\n"
PLAN = {"steps": [1, 2], "b": "½"}
JOB_ID = new_uuid7(NOON)
LARGE = b"G1 X1\n" * 50_000


class Shop:
    """A store with runs of several kinds."""

    def __init__(self, root: Path) -> None:
        self.store = local_store(root)
        self.runs = Runs(self.store)
        self.reader = self.runs.reader
        self.catalog = StoreCatalog(self.reader, self.store)

    def put(self, **fields: Any) -> RunArtifact:
        run = make_run(**fields)
        self.runs.writer.put_run(run)
        return run

    def whole(self) -> RunArtifact:
        """A run with everything that a run can have, its G-code attached."""
        key = self.runs.writer.put_attachment(LARGE, ".nc")
        run = self.put(
            outputs={"gcode_path": key, "opplan_json": PLAN},
            hashes={
                "feasibility_sha256": make_run().hashes.feasibility_sha256,
                "gcode_sha256": sha256_hex(LARGE),
                "opplan_sha256": canonical_sha256(PLAN),
            },
        )
        for number in range(2):
            link = make_link(run, f"adv{number}")
            self.runs.writer.attach(link)
            self.runs.writer.add_review(make_review(link, f"rev{number}"))
            failed_at = NOON + number * HOUR
            self.runs.writer.add_attempt(make_attempt(run, job_id=JOB_ID, failed_at_utc=failed_at))
        return run

    def pack(self, run: RunArtifact) -> bytes:
        return b"".join(stream_pack(run.run_id, self.reader, self.store, None))

    def export(self, **choice: Any) -> Export:
        return Export(self.catalog, RunFilter.read(choice), self.reader, self.store)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "runs")


def files_of(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive, having held each against the manifest."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    assert list(files)[-1] == "MANIFEST.sha256"
    lines = [line.split("  ", 1) for line in files["MANIFEST.sha256"].decode().splitlines()]
    told = {name: digest for digest, name in lines}
    assert told == {name: sha256_hex(data) for name, data in files.items() if name != "MANIFEST.sha256"}
    return files


def spoil(shop_root: Path, key: str) -> None:
    path = shop_root / key
    path.chmod(0o640)
    path.write_bytes(path.read_bytes()[:-2])


# -- one run --------------------------------------------------------------------------------------------


def test_a_pack_holds_all_that_is_stored_of_a_run(shop: Shop, tmp_path: Path) -> None:
    run = shop.whole()
    shop.put()  # another one, which has no place in it
    files = files_of(shop.pack(run))
    digest = sha256_hex(LARGE)
    assert [re.sub("[0-9a-f]{32}", "ID", name.replace(digest, "SHA")) for name in files] == [
        "README.txt",
        "artifact.json",
        f"attachments/{digest[:2]}/SHA.nc",
        "attempts/ID_1785585600000.json",
        "attempts/ID_1785589200000.json",
        "history.json",
        "links/adv0.json",
        "links/adv1.json",
        "outputs/gcode.nc",
        "outputs/opplan.json",
        "reviews/rev0.json",
        "reviews/rev1.json",
        "MANIFEST.sha256",
    ]
    assert files["artifact.json"] == shop.reader.get_bytes(run.run_id)
    stored = tmp_path / "runs" / run.date / f"{run.run_id}_advisory_adv0.json"
    assert files["links/adv0.json"] == stored.read_bytes()
    assert files["outputs/gcode.nc"] == LARGE
    assert sha256_hex(files["outputs/opplan.json"]) == run.hashes.opplan_sha256
    history = json.loads(files["history.json"])
    assert history["run_id"] == run.run_id
    assert [entry["what"] for entry in history["entries"]] == [
        *("run.created", "explanation.failed", "advisory.linked", "advisory.linked"),
        *("explanation.failed", "review.approved", "review.approved"),
    ]


def test_a_pack_holds_gcode_and_plan_that_lie_inside_the_artifact(shop: Shop) -> None:
    run = shop.put(
        outputs={"gcode_text": GCODE, "opplan_json": PLAN, "preview_svg_path": "somewhere/else.svg"},
        hashes={
            "feasibility_sha256": make_run().hashes.feasibility_sha256,
            "gcode_sha256": sha256_hex(GCODE.encode()),
            "opplan_sha256": canonical_sha256(PLAN),
        },
    )
    files = files_of(shop.pack(run))
    assert files["outputs/gcode.nc"] == GCODE.encode()
    assert files["outputs/opplan.json"] == canonical_json(PLAN)
    assert not any(name.startswith("attachments/") for name in files)


def test_a_pack_is_the_same_bytes_again_also_from_a_copy_of_the_store(shop: Shop, tmp_path: Path) -> None:
    run = shop.whole()
    first = shop.pack(run)
    assert shop.pack(run) == first
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = LocalStore(tmp_path / "copy")
    assert b"".join(stream_pack(run.run_id, RunReader(copy), copy, None)) == first
    # Any record more is another pack.
    shop.runs.writer.attach(make_link(run, "later"))
    assert shop.pack(run) != first


def test_a_run_that_is_not_stored_has_no_pack(shop: Shop) -> None:
    with pytest.raises(RunNotFound):
        stream_pack("nowhere", shop.reader, shop.store, None)


@pytest.mark.parametrize(
    "branch", ["20*/*[0-9a-f].json", "20*/*_advisory_*", "_reviews", "_attempts", "_att*s/*/*"]
)
def test_damage_is_an_error_before_there_is_a_first_byte(shop: Shop, tmp_path: Path, branch: str) -> None:
    run = shop.whole()
    root = tmp_path / "runs"
    (path, *_) = [path for path in sorted(root.glob(f"{branch}/**/*")) if path.is_file()] or sorted(
        root.glob(branch)
    )
    spoil(root, path.relative_to(root).as_posix())
    with pytest.raises(CorruptArtifact) as caught:
        stream_pack(run.run_id, shop.reader, shop.store, None)
    assert caught.value.key == path.relative_to(root).as_posix()


def test_an_attachment_that_is_gone_is_damage(shop: Shop, tmp_path: Path) -> None:
    run = shop.whole()
    (tmp_path / "runs" / str(run.outputs.gcode_path)).unlink()
    with pytest.raises(CorruptArtifact):
        stream_pack(run.run_id, shop.reader, shop.store, None)


# -- many -----------------------------------------------------------------------------------------------


def test_an_export_has_one_folder_a_run_one_manifest_and_a_tree(shop: Shop) -> None:
    first = shop.put(meta={"session_id": "s1"})
    second = shop.put(meta={"session_id": "s1", "parent_run_id": first.run_id}, status="ERROR")
    shop.put()
    made = shop.export(session_id="s1")
    data = b"".join(made)
    files = files_of(data)
    folders = {name.split("/")[1] for name in files if name.startswith("runs/")}
    assert folders == {first.run_id, second.run_id}
    assert files[f"runs/{first.run_id}/artifact.json"] == shop.reader.get_bytes(first.run_id)
    assert "DAMAGED.txt" not in files
    assert not made.damaged
    index = json.loads(files["index.json"])
    assert index["filter"] == {"session_id": "s1"}
    (batch,) = index["tree"]["sessions"][0]["batches"]
    assert [(run["run_id"], run["depth"]) for run in batch["runs"]] == [(first.run_id, 0), (second.run_id, 1)]
    assert index["tree"]["total"]["worst_status"] == "ERROR"
    assert index["tree"] == tree(map(TreeItem.of, (second, first))).dump()
    # The same selection is the same bytes, whoever asks.
    again = stream_export(shop.catalog, RunFilter(session_id="s1"), shop.reader, shop.store, None)
    assert b"".join(again) == data


def test_an_export_names_what_is_damaged_and_holds_the_rest(shop: Shop, tmp_path: Path) -> None:
    well, broken, linked = shop.put(), shop.put(), shop.whole()
    root = tmp_path / "runs"
    keys = [
        f"{broken.date}/{broken.run_id}.json",
        f"{linked.date}/{linked.run_id}_advisory_adv1.json",
        str(linked.outputs.gcode_path),
    ]
    for key in keys:
        spoil(root, key)
    made = shop.export()
    files = files_of(b"".join(made))
    assert set(made.damaged) == set(keys)
    told = files["DAMAGED.txt"].decode().splitlines()
    assert [line.split(": ")[0] for line in told] == sorted(keys)
    folders = {name.split("/")[1] for name in files if name.startswith("runs/")}
    assert folders == {well.run_id, linked.run_id}
    assert f"runs/{linked.run_id}/links/adv0.json" in files
    assert f"runs/{linked.run_id}/links/adv1.json" not in files


def test_an_export_of_nothing_is_an_archive_too(shop: Shop) -> None:
    files = files_of(b"".join(shop.export(session_id="none")))
    assert list(files) == ["README.txt", "PROOFS.txt", "index.json", "MANIFEST.sha256"]


def test_an_export_that_means_too_many_runs_is_refused_before_it_begins(shop: Shop) -> None:
    for _ in range(3):
        shop.put()
    with pytest.raises(InvalidRequest, match="more than 2 runs"):
        Export(shop.catalog, RunFilter(), shop.reader, shop.store, most_runs=2)
    assert len(select(shop.catalog, RunFilter(), most_runs=3).run_ids) == 3


def test_an_export_takes_no_more_memory_for_more_records(shop: Shop) -> None:
    """Of each run its place in the tree is held, and no more."""

    def peak(days: int) -> int:
        choice = RunFilter(date_from="2026-08-01", date_to=f"2026-08-{days:02}")
        tracemalloc.start()
        try:
            for _ in Export(shop.catalog, choice, shop.reader, shop.store):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    padding = {"text": "x" * 50_000}
    shop.runs.writer.put_runs(
        [make_run(NOON + timedelta(days=number // 20), meta=padding) for number in range(200)]
    )
    peak(1)  # what is loaded once
    few, many = peak(1), peak(10)
    assert many - few < 180 * 3_000


# -- the flat log ---------------------------------------------------------------------------------------


def log_of(shop: Shop, form: Any, damage: list[CorruptArtifact] | None = None) -> bytes:
    told = [] if damage is None else damage
    return b"".join(flat_log(Pages(shop.catalog, RunFilter()), shop.store, form, told.append))


def test_the_flat_log_has_24_columns_and_a_row_for_each_run(shop: Shop) -> None:
    run = shop.put(meta={"workflow_session_id": "s1", "lineage": {"batch_label": "b"}}, request_id="r1")
    (row,) = csv.DictReader(io.StringIO(log_of(shop, "csv").decode(), newline=""))
    assert len(COLUMNS) == len(row) == 24
    assert list(row) == list(COLUMNS)
    assert (row["run_id"], row["session_id"], row["batch_label"], row["score"]) == (
        run.run_id,
        "s1",
        "b",
        "87.5",
    )
    assert row["artifact_sha256"] == sha256_hex(shop.reader.get_bytes(run.run_id))
    (line,) = log_of(shop, "jsonl").splitlines()
    told = json.loads(line)
    assert list(told) == list(COLUMNS)
    assert {name: "" if value is None else str(value) for name, value in told.items()} == row


def test_a_damaged_run_has_a_row_that_says_so(shop: Shop, tmp_path: Path) -> None:
    run = shop.put()
    shop.put()
    key = f"{run.date}/{run.run_id}.json"
    spoil(tmp_path / "runs", key)
    damage: list[CorruptArtifact] = []
    rows = [json.loads(line) for line in log_of(shop, "jsonl", damage).splitlines()]
    assert [row["status"] for row in rows].count("CORRUPT") == 1
    assert [row["artifact_path"] for row in rows if row["status"] == "CORRUPT"] == [key]
    assert [error.key for error in damage] == [key]


def test_an_empty_log_has_its_names(shop: Shop) -> None:
    assert log_of(shop, "csv").decode() == ",".join(COLUMNS) + "\r\n"
    assert log_of(shop, "jsonl") == b""


@given(
    texts=st.lists(
        st.text('a,; "\n\u2028½', max_size=6)
        | st.builds(
            str.__add__,
            st.sampled_from("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20"),
            st.text(alphabet="=1'\"\n,", max_size=4),
        ),
        min_size=24,
        max_size=24,
    )
)
def test_no_cell_is_a_formula_and_every_text_can_be_had_back(texts: list[str]) -> None:
    row = dict(zip(COLUMNS, texts, strict=True))
    data = b"".join(csv_log([row])).decode()
    names, cells = csv.reader(io.StringIO(data, newline=""))
    assert names == list(COLUMNS)
    assert not any(cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) for cell in cells)
    assert [cell.removeprefix("'") for cell in cells] == texts
    assert [json.loads(line) for line in jsonl_log([row])] == [row]
