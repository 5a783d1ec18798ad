"""Records as older systems wrote them, whole and spoilt, and the directories and files that held them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rmos_shared.canonical import canonical_sha256, sha256_hex

FIRST_DAY = datetime(2025, 12, 18, 6, tzinfo=UTC)
#: The predecessor writes every field, most of them null.
_NULLS = dict.fromkeys(
    (
        *("workflow_session_id", "material_id", "geometry_ref", "drift_detected", "drift_summary", "errors"),
        *("gate_policy_id", "advisory_reviews", "manufacturing_candidates", "source_advisory_id", "notes"),
    )
)


def run_id_of(number: int) -> str:
    return f"run_{sha256_hex(str(number).encode())[:32]}"


def old_run(number: int, **changes: Any) -> dict[str, Any]:
    """Return a complete run of the predecessor."""
    feasibility = {"score": 40 + number % 60, "rules": [f"F{number % 33:03}"], "note": "Fichte, ½ Umdrehung"}
    created = FIRST_DAY + timedelta(hours=7 * (number % 20), seconds=number)
    gcode = f"G21\nG90\nG1 X{number}\nM30\n"
    values: dict[str, Any] = {
        "run_id": run_id_of(number),
        "created_at_utc": created.isoformat().replace("+00:00", "Z"),
        "request_id": f"req-{number}",
        "mode": ("router", "saw")[number % 2],
        "tool_id": f"tool-{number % 7}",
        "status": "OK",
        "request_summary": {"keys": ["design", "context"]},
        "feasibility": feasibility,
        "decision": {
            "risk_level": ("GREEN", "YELLOW")[number % 2],
            "score": 87.5,
            "block_reason": None,
            "warnings": [],
            "details": {},
        },
        "hashes": {
            "feasibility_sha256": canonical_sha256(feasibility),
            "toolpaths_sha256": "c" * 64,
            "gcode_sha256": sha256_hex(gcode.encode()),
            "opplan_sha256": None,
            "snapshot_sha256": None,
        },
        "outputs": {"gcode_text": gcode, "opplan_json": None, "gcode_path": None},
        "lineage": {"parent_plan_run_id": run_id_of(number - 1)} if number % 3 == 1 else None,
        "advisory_inputs": [],
        "explanation_status": "NONE",
        "explanation_summary": None,
        "attachments": None,
        "meta": {"batch_label": f"batch-{number % 5}"},
        "event_type": "toolpaths",
        "machine_id": f"machine-{number % 3}",
        **_NULLS,
    }
    return values | changes


def draft_run(number: int, **changes: Any) -> dict[str, Any]:
    """Return a complete run of the failed draft, its approved explanation inside."""
    run = old_run(number)
    names = ("run_id", "created_at_utc", "mode", "tool_id", "status", "request_summary", "feasibility")
    values = {name: run[name] for name in (*names, "decision", "hashes", "outputs", "meta")}
    values["run_id"] = f"run_{sha256_hex(str(number).encode())[:12]}"
    values["created_at_utc"] = values["created_at_utc"].removesuffix("Z")
    values["decision"] = {"risk_level": "GREEN", "score": 90, "warnings": []}
    values["advisory_inputs"] = [
        {
            "advisory_id": f"adv_{number}",
            "kind": "explanation",
            "created_at_utc": "2025-12-20T08:00:00",
            "engine_id": "feasibility_explainer",
            "engine_version": "0.1",
            "reviewed": True,
            "approved_for_workflow": True,
            "reviewed_by": "system:auto_explanation_green",
        }
    ]
    values["explanation_status"], values["explanation_summary"] = "READY", f"All rules passed for {number}."
    return values | changes


def old_link(advisory_id: str, **changes: Any) -> dict[str, Any]:
    """Return a link file of the predecessor's first kind."""
    values: dict[str, Any] = {
        "advisory_id": advisory_id,
        "kind": "explanation",
        "created_at_utc": "2025-12-21T09:30:00Z",
        "request_id": "req-7",
        "engine_id": "explainer",
        "engine_version": "2",
        "status": "NEW",
        "rejected": False,
        "risk_level": None,
        "rating": None,
        "promoted": False,
    }
    return values | changes


def old_link_v1(run_id: str, advisory_id: str, **changes: Any) -> dict[str, Any]:
    """Return a link file of the predecessor's second kind."""
    values: dict[str, Any] = {
        "schema_version": "run_advisory_link.v1",
        "run_id": run_id,
        "advisory_id": advisory_id,
        "created_at_utc": "2025-12-21T09:30:00Z",
        "advisory_sha256": "d" * 64,
        "kind": "advisory.v1.json",
        "mime": "application/json",
        "size_bytes": 812,
        "status": "ACTIVE",
        "tags": ["wolf-note"],
    }
    return values | changes


def dumped(run: object) -> bytes:
    """Return the bytes as the old systems wrote them."""
    return json.dumps(run, indent=2, ensure_ascii=False).encode()


# -- spoilt ones ------------------------------------------------------------------------------------------


def _without(number: int, *path: str) -> bytes:
    run = old_run(number)
    place: Any = run
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return dumped(run)


def _changed(number: int, **changes: Any) -> bytes:
    return dumped(old_run(number, **changes))


def _decided(number: int, **changes: Any) -> bytes:
    return _changed(number, decision=old_run(number)["decision"] | changes)


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"d": value}
    return value


#: Each makes the bytes of a run that is kept as it was, though it looks odd.
FINE: dict[str, Callable[[int], bytes]] = {
    "lower-case risk": lambda n: _decided(n, risk_level="green"),
    "null event": lambda n: _changed(n, event_type=None),
    "no event": lambda n: _without(n, "event_type"),
    "byte order mark": lambda n: b"\xef\xbb\xbf" + _changed(n),
    "no zone": lambda n: _changed(n, created_at_utc="2025-12-19T10:00:00.25"),
    "other offset": lambda n: _changed(n, created_at_utc="2025-12-20T23:30:00-05:00"),
    "no id inside": lambda n: _without(n, "run_id"),
    "unknown fields": lambda n: _changed(n, saw_lab={"blade": [1, 2.5, "ü"]}, attachments=[{"sha256": "e"}]),
    "absolute path": lambda n: _changed(n, outputs={"gcode_path": "/data/old/x.nc"}),
    "upper-case hash": lambda n: _changed(
        n, hashes={k: v and v.upper() for k, v in old_run(n)["hashes"].items()}
    ),
    "NaN in a foreign field": lambda n: _changed(n, drift_score=float("nan")),
    "legacy in meta": lambda n: _changed(n, meta={"legacy": 1}),
}
#: Each makes the bytes of a run that becomes BLOCKED, and a word of what its violations name.
INCOMPLETE: dict[str, tuple[Callable[[int], bytes], str]] = {
    "no mode": (lambda n: _without(n, "mode"), "mode: is missing"),
    "no tool": (lambda n: _changed(n, tool_id=None), "tool_id: is missing"),
    "blank tool": (lambda n: _changed(n, tool_id="  "), "tool_id: must not be blank"),
    "no status": (lambda n: _without(n, "status"), "status: is missing"),
    "lower-case status": (lambda n: _changed(n, status="ok"), "status: must be one of"),
    "no risk": (lambda n: _decided(n, risk_level=None), "decision.risk_level: is missing"),
    "unknown risk": (lambda n: _decided(n, risk_level="LOW"), "decision.risk_level: must be one of"),
    "no decision": (lambda n: _without(n, "decision"), "decision.risk_level: is missing"),
    "decision is text": (lambda n: _changed(n, decision="GREEN"), "decision: must be an object"),
    "score too high": (lambda n: _decided(n, score=130), "decision.score: must be from 0 to 100"),
    "score is NaN": (lambda n: _decided(n, score=float("nan")), "decision.score"),
    "warnings are text": (lambda n: _decided(n, warnings="hot"), "decision.warnings"),
    "no hashes": (lambda n: _without(n, "hashes"), "hashes.feasibility_sha256: is missing"),
    "null hash": (
        lambda n: _changed(n, hashes={"feasibility_sha256": None}),
        "hashes.feasibility_sha256: is missing",
    ),
    "wrong hash": (
        lambda n: _changed(n, hashes={"feasibility_sha256": "0" * 64}),
        "hashes.feasibility_sha256: is not the hash",
    ),
    "wrong G-code hash": (
        lambda n: _changed(n, hashes=old_run(n)["hashes"] | {"gcode_sha256": "1" * 64}),
        "hashes.gcode_sha256: is not the hash",
    ),
    "empty feasibility": (lambda n: _changed(n, feasibility={}), "feasibility: is missing"),
    "NaN in feasibility": (
        lambda n: _changed(n, feasibility={"clearance": float("nan")}),
        "feasibility: clearance: NaN",
    ),
    "nested too deep": (lambda n: _changed(n, feasibility=_deep(150)), "nested deeper than 100"),
    "lone surrogate": (
        lambda n: _changed(n, request_summary={"t": "@"}).replace(b'"@"', b'"\\ud800"'),
        "request_summary: t: lone surrogate",
    ),
    "a key twice": (
        lambda n: _changed(n).replace(b'"mode":', b'"mode": "mill",\n  "mode":', 1),
        "mode: stands twice",
    ),
    "meta is a list": (lambda n: _changed(n, meta=[1]), "meta: must be an object"),
    "no exception": (lambda n: _changed(n, status="ERROR"), "meta.exception.type: is missing"),
    "long request id": (lambda n: _changed(n, request_id="r" * 300), "request_id"),
}
#: Each makes the bytes of what cannot be read, and a word of the reason.
UNREADABLE: dict[str, tuple[Callable[[int], bytes], str]] = {
    "empty": (lambda _: b"", "empty"),
    "cut": (lambda n: _changed(n)[:-40], "not JSON"),
    "not UTF-8": (lambda n: _changed(n).replace(b"router", b"\xff\xfe").replace(b"saw", b"\xff"), "UTF-8"),
    "a list": (lambda n: dumped([old_run(n)]), "no JSON object"),
    "null": (lambda _: b"null", "no JSON object"),
    "nested without end": (lambda _: b'{"a":' * 100_000, "nested too deep"),
    "long number": (lambda n: _changed(n, seed=10**500), "digits"),
    "Unicode id": (lambda n: _changed(n, run_id="run_größe"), "run id"),
    "link's id": (lambda n: _changed(n, run_id="run_a_advisory_b"), "run id"),
    "path as id": (lambda n: _changed(n, run_id="../../etc/passwd"), "run id"),
    "id is a number": (lambda n: _changed(n, run_id=7), "run id"),
    "no time": (lambda n: _without(n, "created_at_utc"), "created_at_utc"),
    "time is text": (lambda n: _changed(n, created_at_utc="yesterday"), "created_at_utc"),
}


def every_oddity(first: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, number and bytes of one run of each oddity."""
    made = FINE | {name: make for name, (make, _) in (INCOMPLETE | UNREADABLE).items()}
    for number, (name, make) in enumerate(made.items(), start=first):
        yield name, number, make(number)


# -- sources ----------------------------------------------------------------------------------------------


def write_partitioned(root: Path, count: int, *, links: bool = True) -> None:
    """Write a directory as the predecessor keeps it, with its index, and a link beside every fifth run."""
    root.mkdir(parents=True)
    (root / "_index.json").write_bytes(dumped({run_id_of(n): {"mutable": True} for n in range(count)}))
    (root / "_advisory_lookup.json").write_bytes(b"{}")
    for number in range(count):
        run = old_run(number)
        put(root / run["created_at_utc"][:10] / f"{run['run_id']}.json", dumped(run))
        if links and number % 5 == 0:
            put_link(root, run, old_link(f"adv-{number}"))


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_link(root: Path, run: dict[str, Any], link: dict[str, Any], prefix: str = "") -> None:
    name = f"{prefix}{run['run_id']}_advisory_{link['advisory_id']}.json"
    put(root / run["created_at_utc"][:10] / name, dumped(link))


def write_flat(root: Path, count: int) -> None:
    """Write a directory as the draft keeps it; every fourth run has its explanation."""
    root.mkdir(parents=True)
    for number in range(count):
        run = draft_run(number, **({} if number % 4 == 1 else {"advisory_inputs": []}))
        (root / f"{run['run_id']}.json").write_bytes(dumped(run))


def write_file(path: Path, count: int, *, as_list: bool = False) -> None:
    """Write one document with all runs, piece by piece."""
    with path.open("wb") as file:
        file.write(b"[" if as_list else b"{")
        for number in range(count):
            run = old_run(number)
            key = b"" if as_list else json.dumps(run["run_id"]).encode() + b": "
            file.write((b",\n" if number else b"\n") + key + dumped(run))
        file.write(b"\n]" if as_list else b"\n}")


def state_of(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, time and content of everything below ``root``."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def shuffled(seed: int, count: int) -> list[int]:
    """Return numbers in an order of their own."""
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)  # noqa: S311 - no secret hangs on it
    return numbers
