"""Two runs held against one another: as values, and as lines."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_runs.operations.changes import changes
from rmos_runs.operations.compare import MOST_CHANGES, compare, rule_ids
from rmos_runs.operations.diff import MOST_COMPARED_LINES, MOST_LINE_CHARACTERS, unified_diff
from rmos_shared.canonical import canonical_sha256, sha256_hex
from rmos_shared.runs.model import RunArtifact
from support.records import make_run

GCODE = "G21\nG90\nG1 X10 Y20\nM30\n"
OTHER_GCODE = "G21\nG90\nG1 X11 Y20\nM30\n"


def judged(rules: list[Any] | str | None = None, *, blocking: bool = False, **fields: Any) -> RunArtifact:
    """A run whose feasibility names these rules."""
    feasibility = {"blocking": blocking, "rules_triggered": rules}
    hashes = {"feasibility_sha256": canonical_sha256(feasibility)} | fields.pop("hashes", {})
    return make_run(feasibility=feasibility, hashes=hashes, **fields)


def produced(gcode: str | None, plan: dict[str, Any] | None = None) -> RunArtifact:
    hashes = {
        "gcode_sha256": None if gcode is None else sha256_hex(gcode.encode()),
        "opplan_sha256": None if plan is None else canonical_sha256(plan),
    }
    return judged(outputs={"gcode_text": gcode, "opplan_json": plan}, hashes=hashes)


# -- compare ------------------------------------------------------------------------------------------


def test_what_the_server_judged_stands_first() -> None:
    left = judged(["F001", "F002"], decision={"risk_level": "GREEN", "score": 90})
    right = judged(
        ["F002", "F010"],
        blocking=True,
        status="BLOCKED",
        decision={"risk_level": "RED", "score": 8.5, "block_reason": "too deep", "warnings": ["thin"]},
    )
    found = compare(left, right)
    assert not found.same
    assert (found.status.left, found.status.right, found.status.same) == ("OK", "BLOCKED", False)
    assert (found.risk.left, found.risk.right) == ("GREEN", "RED")
    assert (found.score.left, found.score.right) == (90, 8.5)
    assert (found.blocking.left, found.blocking.right) == (False, True)
    assert (found.rules.added, found.rules.removed) == (["F010"], ["F001"])
    assert [(change.path, change.left, change.right) for change in found.decision] == [
        ("block_reason", None, "too deep"),
        ("warnings.0", None, "thin"),
    ]


def test_parameters_are_named_by_dotted_paths_with_both_values() -> None:
    left = judged(request_summary={"tool": {"d": 3, "a.b": 1}, "passes": [1, 2], "gone": None, "n": 1})
    right = judged(request_summary={"tool": {"d": 4, "a.b": 2}, "passes": [1, 3, 5], "n": 1.0, "new": {}})
    assert [
        (change.path, change.change, change.left, change.right) for change in compare(left, right).parameters
    ] == [
        ("gone", "removed", None, None),
        ("n", "changed", 1, 1.0),
        ("new", "added", None, {}),
        ("passes.1", "changed", 2, 3),
        ("passes.2", "added", None, 5),
        (r"tool.a\.b", "changed", 1, 2),
        ("tool.d", "changed", 3, 4),
    ]


def test_tool_mode_and_meta_are_compared_and_where_a_run_came_from_is_not() -> None:
    left = judged(tool_id="a", meta={"machine_id": "m1", "parent_run_id": "p1", "parent_kind": "run"})
    right = judged(tool_id="b", meta={"machine_id": "m2", "parent_run_id": left.run_id})
    assert [change.path for change in compare(left, right).context] == ["meta.machine_id", "tool_id"]


def test_outputs_are_told_by_place_size_and_hash() -> None:
    path = f"_attachments/ab/{'ab' * 32}.nc"
    left, right = produced(GCODE, {"op": 1}), judged(outputs={"gcode_path": path})
    found = compare(left, right).outputs
    assert (found.gcode.left.place, found.gcode.left.size_bytes) == ("inline", len(GCODE))
    assert (found.gcode.right.place, found.gcode.right.path) == ("file", path)
    assert found.gcode.same is None, "no hash of the right one is known"
    assert (found.opplan.left.size_bytes, found.opplan.same) == (8, False)
    assert found.preview_svg.same is None
    assert compare(produced(GCODE), produced(GCODE)).outputs.gcode.same is True
    assert compare(produced(GCODE), produced(OTHER_GCODE)).outputs.gcode.same is False


def test_no_text_of_a_program_is_in_a_comparison() -> None:
    assert "X10" not in json.dumps(compare(produced(GCODE), produced(OTHER_GCODE)).dump())


@pytest.mark.parametrize(
    ("rules", "ids"),
    [(None, []), ("F001", ["F001"]), (["b", "a", "b"], ["a", "b"]), ([{"id": 1}, 5], ["5", '{"id":1}'])],
)
def test_rules_are_read_as_the_explainer_reads_them(rules: Any, ids: list[str]) -> None:
    assert rule_ids(judged(rules)) == ids


def test_a_comparison_is_bounded() -> None:
    left = judged(request_summary={str(number): number for number in range(MOST_CHANGES + 1)})
    found = compare(left, judged())
    assert len(found.parameters) == MOST_CHANGES
    assert found.truncated
    assert not compare(left, left).truncated


#: Few characters, so that drawing them takes little time: those of a path, a line break, some beyond ASCII.
TEXTS = st.text("ab.\\\n\u2028½\U0001f3b8", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
RUNS = st.builds(
    lambda rules, summary, meta, risk, gcode: judged(
        rules,
        request_summary={name: value for name, value in summary.items() if name != "feasibility"},
        meta=meta,
        decision={"risk_level": risk},
        outputs={"gcode_text": gcode},
        hashes={"gcode_sha256": None if gcode is None else sha256_hex(gcode.encode())},
    ),
    st.lists(st.sampled_from(["F1", "F2", "F3"])),
    OBJECTS,
    OBJECTS,
    st.sampled_from(["GREEN", "YELLOW", "RED", "UNKNOWN", "ERROR"]),
    st.none() | TEXTS,
)


def turned(value: Any) -> Any:
    """Return the same JSON with the keys of every object the other way round."""
    if isinstance(value, dict):
        return {name: turned(item) for name, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(run=RUNS)
@settings(max_examples=50)
def test_a_run_differs_from_itself_in_nothing_whatever_the_order_of_its_keys(run: RunArtifact) -> None:
    again = RunArtifact.read(turned(run.dump()))
    found = compare(run, again)
    assert found.same
    assert not [*found.decision, *found.context, *found.parameters, *found.rules.added, *found.rules.removed]
    assert unified_diff(run, again, most_lines=10).preview == ""


@given(left=RUNS, right=RUNS)
@settings(max_examples=100)
def test_a_comparison_is_the_same_again_and_mirrored_the_other_way_round(
    left: RunArtifact, right: RunArtifact
) -> None:
    found, back = compare(left, right), compare(right, left)
    reread = (RunArtifact.read(turned(run.dump())) for run in (left, right))
    assert compare(*reread) == found
    assert back.same is found.same
    assert (back.rules.added, back.rules.removed) == (found.rules.removed, found.rules.added)
    for name in ("decision", "context", "parameters"):
        there = [(change.path, change.left, change.right) for change in getattr(found, name)]
        assert [(change.path, change.right, change.left) for change in getattr(back, name)] == there
    assert json.loads(json.dumps(found.dump())) == found.dump()


@given(left=OBJECTS, right=OBJECTS)
def test_there_are_no_changes_exactly_when_the_hashes_agree(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    assert (not list(changes(left, right))) is (canonical_sha256(left) == canonical_sha256(right))


# -- diff ---------------------------------------------------------------------------------------------


def test_a_diff_is_in_the_unified_form_of_indented_json() -> None:
    left, right = judged(request_summary={"a": 1, "b": [2]}), judged(request_summary={"a": 1, "b": [3]})
    found = unified_diff(left, right, most_lines=100)
    lines = found.preview.splitlines()
    assert lines[:2] == [f"--- {left.run_id}", f"+++ {right.run_id}"]
    assert "-      2" in lines
    assert "+      3" in lines
    assert (found.left_id, found.right_id, found.diff_kind) == (left.run_id, right.run_id, "unified")
    assert not found.truncated


def test_a_diff_shows_size_and_hash_in_the_place_of_a_program() -> None:
    hidden = {"legacy": {"outputs": {"gcode": GCODE}}}
    left = produced(GCODE).model_copy(update={"meta": hidden})
    preview = unified_diff(left, produced(OTHER_GCODE), most_lines=1000).preview
    assert "X1" not in preview
    assert "G90" not in preview
    assert sha256_hex(OTHER_GCODE.encode()) in preview


def test_lines_that_are_left_out_or_cut_are_told() -> None:
    left = judged(request_summary={str(number): number for number in range(50)})
    right = judged(request_summary={str(number): -number for number in range(50)})
    found = unified_diff(left, right, most_lines=10)
    assert found.truncated
    assert len(found.preview.splitlines()) == 10
    long = unified_diff(left, judged(meta={"x": "y" * 1000}), most_lines=1000)
    assert long.truncated
    assert max(map(len, long.preview.splitlines())) == MOST_LINE_CHARACTERS


def test_a_small_change_in_a_large_artifact_is_found_wherever_it_is() -> None:
    lines = {f"{number:06}": number for number in range(20_000)}
    left, right = judged(request_summary=lines), judged(request_summary=lines | {"019990": "here"})
    found = unified_diff(left, right.model_copy(update={"run_id": left.run_id}), most_lines=100)
    assert '+    "019990": "here",' in found.preview
    assert not found.truncated


def test_the_time_of_a_diff_is_bounded() -> None:
    noise = random.Random(1)  # noqa: S311 - any lines will do
    words = [f"word {number % 100}" for number in range(30_000)]
    one, other = noise.sample(words, len(words)), noise.sample(words, len(words))
    left, right = judged(request_summary={"w": one}), judged(request_summary={"w": other})
    began = time.monotonic()
    found = unified_diff(left, right, most_lines=10_000)
    assert time.monotonic() - began < 10
    assert found.truncated
    assert len(found.preview.splitlines()) < 2 * MOST_COMPARED_LINES + 100


def apply(preview: str, lines: list[str]) -> list[str]:
    """Apply a unified diff as patch(1) does."""
    done, read = [], 0
    for line in preview.split("\n")[2:-1]:
        if line.startswith("@@"):
            start, _, length = line.split()[1].removeprefix("-").partition(",")
            begin = int(start) - (length != "0")
            done += lines[read:begin]
            read = begin
        elif line[0] == "+":
            done.append(line[1:])
        else:
            assert lines[read] == line[1:]
            read += 1
            if line[0] == " ":
                done.append(line[1:])
    return done + lines[read:]


@given(left=OBJECTS, right=OBJECTS)
@settings(max_examples=60)
def test_the_left_side_and_the_diff_make_the_right_side(left: dict[str, Any], right: dict[str, Any]) -> None:
    one, other = judged(meta=left), judged(meta=right)
    found = unified_diff(one, other, most_lines=100_000)
    told = [
        json.dumps(run.dump(), sort_keys=True, indent=2, ensure_ascii=False).split("\n")
        for run in (one, other)
    ]
    assert apply(found.preview, told[0]) == told[1]
