"""``rmos runs history | compare | diff | tree | pack | export`` as an auditor would run them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.cli.packs import ExportForm, export
from rmos_runs.local.home import Home
from rmos_shared.canonical import sha256_hex
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.model import RiskLevel, RunArtifact, Status
from rmos_shared.store.local import LocalStore
from support.command import on_terminal, piped
from support.records import HOUR, NOON, make_link, make_run
from support.runs import Runs


class Shop:
    """A home with a family of runs, and ``rmos`` on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        home = Home(root)
        home.init_store()
        self.runs_dir = home.runs_dir
        self.store = LocalStore(home.runs_dir)
        self.runs = Runs(self.store)
        self.first = self.put(meta={"session_id": "s 1", "batch_label": "b1"})
        self.second = self.put(
            at=NOON + HOUR,
            meta={"session_id": "s 1", "batch_label": "b1", "parent_run_id": self.first.run_id},
            decision={"risk_level": "RED", "score": 8},
            status="BLOCKED",
            tool_id="=cmd",
        )
        self.runs.writer.attach(make_link(self.first))

    def put(self, at: Any = NOON, **fields: Any) -> RunArtifact:
        run = make_run(at, **fields)
        self.runs.writer.put_run(run)
        return run

    def spoil(self, run: RunArtifact) -> str:
        key = f"{run.date}/{run.run_id}.json"
        path = self.runs_dir / key
        path.chmod(0o640)
        path.write_bytes(path.read_bytes()[:-2])
        return key

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return piped("runs", *arguments, home=self.root)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "home")


def test_history_says_that_the_broker_is_away(shop: Shop) -> None:
    done = shop("history", shop.first.run_id)
    assert done.returncode == 0
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [
        "what",
        "run.created",
        "advisory.linked",
    ]
    assert "the broker is away" in done.stderr
    entries = shop.json("history", shop.first.run_id)
    assert [entry["source"] for entry in entries] == ["store", "store"]
    assert shop("history", new_uuid7()).returncode == 4


def test_compare_and_diff_two_runs_or_a_run_with_its_parent(shop: Shop) -> None:
    both = (shop.first.run_id, shop.second.run_id)
    found = shop.json("compare", *both)
    assert (found["risk"]["left"], found["risk"]["right"], found["same"]) == ("GREEN", "RED", False)
    assert shop.json("compare", shop.second.run_id, "--parent") == found
    lines = shop("compare", *both).stdout.splitlines()
    assert lines[0] == "what\tleft\tright"
    assert "risk\tGREEN\tRED" in lines

    diff = shop.json("diff", *both)
    assert diff["diff_kind"] == "unified"
    assert shop.json("diff", shop.second.run_id, "--parent") == diff
    assert shop("diff", *both).stdout == diff["preview"]
    short = shop("diff", *both, "--lines", "5")
    assert len(short.stdout.splitlines()) == 5
    assert "there is more" in short.stderr
    same = shop("compare", both[0], both[0])
    assert (same.returncode, same.stdout) == (0, "")


@pytest.mark.parametrize("command", ["compare", "diff"])
def test_compare_and_diff_refuse_what_they_cannot_do(shop: Shop, command: str) -> None:
    assert shop(command, shop.first.run_id).returncode == 2
    assert shop(command, shop.first.run_id, shop.second.run_id, "--parent").returncode == 2
    assert shop(command, shop.first.run_id, "--parent").returncode == 3
    assert shop(command, shop.first.run_id, "../../etc/passwd").returncode == 4
    shop.spoil(shop.first)
    assert shop(command, shop.second.run_id, "--parent").returncode == 7


def test_a_tree_of_a_session_a_batch_and_a_run(shop: Shop) -> None:
    trees = [
        shop.json("tree", *way)
        for way in (("--session", "s 1"), ("--batch", "b1"), (shop.first.run_id,), (shop.second.run_id,))
    ]
    assert trees == [trees[0]] * 4
    (batch,) = trees[0]["sessions"][0]["batches"]
    assert [(run["run_id"], run["depth"]) for run in batch["runs"]] == [
        (shop.first.run_id, 0),
        (shop.second.run_id, 1),
    ]
    assert batch["total"]["worst_risk"] == "RED"
    done = on_terminal("runs", "tree", "--session", "s 1", home=shop.root, width=60)
    assert done.returncode == 0
    assert shop.second.run_id in done.stdout
    assert "session s 1: 2 (RED 1, GREEN 1)" in done.stdout
    limited = shop("tree", "--session", "s 1", "--limit", "1")
    assert "more than these 1" in limited.stderr


def test_a_tree_names_what_is_missing_and_what_goes_in_a_circle(shop: Shop) -> None:
    lost = shop.put(meta={"parent_run_id": "elsewhere", "batch_label": "b2"})
    one = make_run()
    other = make_run(meta={"parent_run_id": one.run_id, "batch_label": "b2"})
    one = one.model_copy(update={"meta": {"parent_run_id": other.run_id, "batch_label": "b2"}})
    shop.runs.writer.put_runs([one, other])
    done = shop("tree", "--batch", "b2")
    assert lost.run_id in done.stdout
    assert "not in this tree: elsewhere" in done.stderr
    assert "a circle of parents" in done.stderr
    assert shop("tree", "--batch", "none").returncode == 0
    for wrong in ((), (lost.run_id, "--batch", "b2")):
        assert shop("tree", *wrong).returncode == 2
    key = shop.spoil(lost)
    damaged = shop("tree", "--batch", "b2")
    assert damaged.returncode == 7
    assert key in damaged.stderr


def checked(archive: Path, into: Path) -> Path:
    """Unpack an archive, having had it tested by programs that are not ours."""
    unzip, sha256sum = shutil.which("unzip"), shutil.which("sha256sum")
    if unzip:
        subprocess.run([unzip, "-tq", archive], check=True, capture_output=True)
    shutil.unpack_archive(archive, into, "zip")
    assert sha256sum
    subprocess.run(
        [sha256sum, "--check", "--strict", "--quiet", "MANIFEST.sha256"],
        cwd=into,
        check=True,
        capture_output=True,
    )
    return into


def test_a_pack_is_checked_by_sha256sum_and_is_the_same_bytes_again(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "run.zip"
    said = shop.json("pack", shop.first.run_id, "-o", str(target))
    assert said["sha256"] == sha256_hex(target.read_bytes())
    assert said["size_bytes"] == target.stat().st_size
    files = checked(target, tmp_path / "unpacked")
    stored = shop.runs_dir / shop.first.date / f"{shop.first.run_id}.json"
    assert (files / "artifact.json").read_bytes() == stored.read_bytes()

    copy = shutil.copytree(shop.root, tmp_path / "copy")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from rmos_runs.cli import main; main()",
            "runs",
            "pack",
            shop.first.run_id,
            "-o",
            "-",
        ],
        env={"RMOS_HOME": str(copy), "PATH": ""},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == target.read_bytes()


def test_a_file_that_is_there_is_replaced_by_force_only(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "run.zip"
    target.write_text("mine")
    refused = shop("pack", shop.first.run_id, "-o", str(target))
    assert (refused.returncode, target.read_text()) == (5, "mine")
    assert shop("pack", shop.first.run_id, "-o", str(target), "--force").returncode == 0
    assert target.read_bytes().startswith(b"PK")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_pack_that_cannot_be_made_leaves_no_file(shop: Shop, tmp_path: Path) -> None:
    shop.spoil(shop.first)
    target = tmp_path / "run.zip"
    assert shop("pack", shop.first.run_id, "-o", str(target)).returncode == 7
    assert shop("pack", new_uuid7(), "-o", str(target)).returncode == 4
    nowhere = shop("pack", shop.second.run_id, "-o", str(tmp_path / "no" / "run.zip"))
    assert nowhere.returncode == 1
    assert not target.exists()
    terminal = on_terminal("runs", "pack", shop.second.run_id, "-o", "-", home=shop.root, width=80)
    assert terminal.returncode == 2


def test_an_export_of_a_selection_is_checked_by_sha256sum(shop: Shop, tmp_path: Path) -> None:
    shop.put(at=NOON + timedelta(days=1))
    target = tmp_path / "runs.zip"
    said = shop.json("export", "--session", "s 1", "--date-to", "2026-08-01", "-o", str(target))
    assert (said["runs"], said["damaged"]) == (2, 0)
    files = checked(target, tmp_path / "unpacked")
    assert {path.name for path in (files / "runs").iterdir()} == {shop.first.run_id, shop.second.run_id}
    assert json.loads((files / "index.json").read_text())["tree"]["total"]["runs"] == 2
    again = tmp_path / "again.zip"
    shop.json("export", "--session", "s 1", "--date-to", "2026-08-01", "-o", str(again))
    assert again.read_bytes() == target.read_bytes()


def test_an_export_with_damage_holds_the_rest_and_exits_7(shop: Shop, tmp_path: Path) -> None:
    key = shop.spoil(shop.first)
    target = tmp_path / "runs.zip"
    done = shop("export", "-o", str(target))
    assert done.returncode == 7
    assert key in done.stderr
    files = checked(target, tmp_path / "unpacked")
    assert (files / "DAMAGED.txt").read_text().startswith(f"{key}: ")
    assert [path.name for path in (files / "runs").iterdir()] == [shop.second.run_id]
    log = shop("export", "--format", "jsonl")
    assert log.returncode == 7
    assert [json.loads(line)["status"] for line in log.stdout.splitlines()] == ["BLOCKED", "CORRUPT"]


def test_the_flat_log_goes_to_standard_output_and_holds_no_formula(shop: Shop) -> None:
    done = shop("export", "--format", "csv", "--risk", "RED")
    assert done.returncode == 0
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["run_id"], row["tool_id"], row["parent_run_id"]) == (
        shop.second.run_id,
        "'=cmd",
        shop.first.run_id,
    )


def test_an_export_takes_the_filters_of_the_list(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RMOS_RUNS_DIR", raising=False)
    monkeypatch.setenv("RMOS_BROKER_URL", "redis://127.0.0.1:1/0")
    fields = {
        "session_id": "s 2",
        "batch_label": "b2",
        "parent_run_id": shop.first.run_id,
        "machine_id": "m2",
        "material_id": "ebony",
    }
    wanted = shop.put(
        at=NOON + timedelta(days=2),
        status="ERROR",
        decision={"risk_level": "YELLOW"},
        mode="saw",
        tool_id="saw:160",
        event_type="toolpaths",
        request_id="r2",
        meta=fields | {"exception": {"type": "X", "message": "x"}},
    )
    shop.runs.writer.attach(make_link(wanted, approved=False, reviewed_by=None))
    choices: dict[str, Any] = {
        "status": Status.ERROR,
        "risk": RiskLevel.YELLOW,
        "mode": "saw",
        "tool_id": "saw:160",
        "tool_id_prefix": "saw:",
        "event_type": "toolpaths",
        "request_id": "r2",
        "needs_review": True,
        "date_from": NOON + timedelta(days=1),
        "session": "s 2",
        "batch": "b2",
        "machine": "m2",
        "material": "ebony",
    }
    for name, value in choices.items():
        target = tmp_path / f"{name}.jsonl"
        export(form=ExportForm.JSONL, output=str(target), home=shop.root, **{name: value})
        (row,) = target.read_text().splitlines()
        assert json.loads(row)["run_id"] == wanted.run_id, name
    export(form=ExportForm.JSONL, output=str(tmp_path / "rest"), home=shop.root, date_to=NOON)
    assert len((tmp_path / "rest").read_text().splitlines()) == 2

    words = ("--risk", "yellow", "--parent", shop.first.run_id, "--explanation", "READY", "--needs-review")
    done = shop("export", "--format", "jsonl", *words)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["run_id"] for line in done.stdout.splitlines()] == [wanted.run_id]
    assert shop("export", "--session", "").returncode == 3


#: Prints how long a pack is, and how much memory its process had at the most, in KB.
MEASURE = """
import resource, sys
from pathlib import Path
from rmos_runs.operations.pack import stream_pack
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
total = sum(map(len, stream_pack(sys.argv[2], RunReader(store), store, None)))
print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_memory_of_a_pack_does_not_grow_with_an_attachment(tmp_path: Path) -> None:
    def peak_kb(megabytes: int) -> int:
        shop = Shop(tmp_path / str(megabytes))
        content = tmp_path / "content"
        with content.open("wb") as file:
            for number in range(megabytes):
                file.write(bytes([number % 256]) * (1 << 20))
        with content.open("rb") as file:
            key = Attachments(shop.store).put(file, ".nc")
        digest = key.rpartition("/")[2].removesuffix(".nc")
        hashes = {"feasibility_sha256": make_run().hashes.feasibility_sha256, "gcode_sha256": digest}
        run = shop.put(outputs={"gcode_path": key}, hashes=hashes)
        program = [sys.executable, "-c", MEASURE, str(shop.runs_dir), run.run_id]
        done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
        total, peak = map(int, done.stdout.split())
        assert total > 2 * megabytes << 20
        return peak

    assert peak_kb(200) - peak_kb(1) < 8_000
