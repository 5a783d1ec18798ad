"""The vocabulary of ``meta`` at the top level of a request (contract section 7)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.errors import InvalidRequest
from rmos_shared.ids import new_uuid7
from rmos_shared.runs import model
from rmos_shared.runs.model import RunRequest
from rmos_shared.runs.vocabulary import WORDS, meta_text
from rmos_shared.tasks.payloads import CreateRun
from rmos_worker.handlers.artifact import artifact_of
from support.records import NOON

SECRET = "hunter2"
#: All that a request needs to be one.
REQUEST = {"request_id": "req-1"}
#: A value of each word that is no plain text.
OTHERS: dict[str, Any] = {
    "parent_run_id": "run_0123456789abcdef0123456789abcdef",
    "parent_kind": "toolpaths",
    "lineage": {"session_id": "S1", "deep": [1, {"x": None}]},
    "drift_detected": False,
    "notes": "first line\nsecond\tline",
    "drift_summary": "",
}
CONTRACT = """session_id workflow_session_id batch_label parent_run_id parent_kind lineage tool_kind
machine_id material_id workflow_mode toolchain_id toolchain_version post_processor_id engine_version
config_fingerprint
geometry_ref geometry_hash gate_policy_id gate_decision drift_detected drift_summary notes"""


def value_of(word: str) -> Any:
    return OTHERS.get(word, f"{word} ½")


def refused(**fields: Any) -> dict[str, str]:
    """Return the reasons by field, the same however the request comes, and without a value."""
    reasons = []
    for read in (RunRequest.read, lambda obj: RunRequest.read_json(json.dumps(obj))):
        with pytest.raises(InvalidRequest) as caught:
            read(REQUEST | fields)
        assert SECRET not in str(caught.value)
        reasons.append({problem.field: problem.reason for problem in caught.value.problems})
    assert reasons[0].keys() == reasons[1].keys()
    return reasons[0]


def test_the_words_are_those_of_the_contract() -> None:
    assert set(CONTRACT.split()) == WORDS
    assert WORDS.isdisjoint(RunRequest.model_fields)


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_word_at_the_top_level_is_stored_under_meta_by_the_same_name(word: str) -> None:
    run = RunRequest.read({**REQUEST, word: value_of(word), "meta": {"client": "x"}})
    assert artifact_of(run)[0].meta == {"client": "x", word: value_of(word)}


def test_a_word_that_is_null_is_left_out() -> None:
    run = RunRequest.read({**REQUEST, "session_id": None, "notes": None, "meta": {"notes": "n"}})
    assert run.meta == {"notes": "n"}


def test_the_same_value_twice_is_one() -> None:
    lineage = {"b": 1, "a": [True]}
    run = RunRequest.read(
        {**REQUEST, "lineage": lineage, "meta": {"lineage": {"a": [True], "b": 1}, "session_id": None}}
        | {"session_id": "S1"}
    )
    assert run.meta == {"lineage": lineage, "session_id": "S1"}


@pytest.mark.parametrize(
    ("word", "top", "inner"),
    [
        ("session_id", "S1", SECRET),
        ("session_id", "S1", 5),
        ("drift_detected", True, 1),
        ("lineage", {"n": 1}, {"n": 1.0}),
        ("lineage", {"n": 1}, {"n": float("nan")}),
        ("parent_run_id", "a", "b"),
    ],
)
def test_another_value_under_meta_is_refused_by_name(word: str, top: object, inner: object) -> None:
    assert refused(**{word: top, "meta": {word: inner}})[word] == f"differs from meta.{word}; give it once"


def test_two_names_of_one_session_must_agree() -> None:
    reason = "session_id and workflow_session_id are the same thing, and differ; give one of them"
    assert refused(session_id="S1", workflow_session_id="S2") == {"session_id": reason}
    assert refused(workflow_session_id="S1", meta={"session_id": "S2"}) == {"workflow_session_id": reason}
    both = {"session_id": "S1", "workflow_session_id": "S1"}
    assert RunRequest.read(REQUEST | both).meta == both


def test_what_meta_alone_says_is_as_free_as_ever() -> None:
    meta = {
        "session_id": 5,
        "workflow_session_id": "x" * 1000,
        "parent_run_id": "../..",
        "drift_detected": "",
    }
    assert RunRequest.read(REQUEST | {"meta": meta}).meta == meta


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("session_id", SECRET * 74),
        ("session_id", ""),
        ("session_id", f"{SECRET}\n"),
        ("batch_label", f"{SECRET}\0"),
        ("machine_id", 5),
        ("notes", SECRET * 74),
        ("notes", [SECRET]),
        ("parent_run_id", f"../{SECRET}"),
        ("parent_run_id", f"{SECRET}_advisory_1"),
        ("parent_kind", SECRET),
        ("lineage", SECRET),
        ("drift_detected", 1),
        ("drift_detected", "true"),
    ],
)
def test_a_word_of_the_wrong_type_is_refused_by_name(word: str, value: object) -> None:
    assert refused(**{word: value}).keys() == {word}


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(InvalidRequest, match="notes"):
        RunRequest.read(REQUEST | {"notes": f"{SECRET}\ud800"})


def test_a_word_may_have_512_characters() -> None:
    words = {"session_id": "½" * 512, "notes": "\n" * 512}
    assert RunRequest.read(REQUEST | words).meta == words


def test_every_wrong_field_is_named_at_once() -> None:
    told = refused(session_id=5, drift_detected="yes", mode=5, tool=SECRET, decision={"score": 101})
    assert told.keys() == {"session_id", "drift_detected", "mode", "tool", "decision.score"}
    assert told["tool"] == "Extra inputs are not permitted"


def test_meta_that_is_no_object_is_refused_as_ever() -> None:
    assert refused(session_id="S1", meta=[SECRET]).keys() == {"meta"}


def test_a_wrong_word_is_named_below_the_field_that_holds_the_request() -> None:
    with pytest.raises(InvalidRequest) as caught:
        CreateRun.read_json(json.dumps({"run": REQUEST | {"notes": 5}}))
    assert [problem.field for problem in caught.value.problems] == ["run.notes"]


def test_a_request_without_words_pays_one_look_at_its_keys(
    monkeypatch: pytest.MonkeyPatch, sample_requests: list[dict[str, Any]]
) -> None:
    def called(_: object) -> dict[str, Any]:
        raise AssertionError

    monkeypatch.setattr(model, "with_words_in_meta", called)
    RunRequest.read(sample_requests[0])


def test_what_is_stored_of_requests_without_words_has_not_changed(
    sample_requests: list[dict[str, Any]],
) -> None:
    digest = hashlib.sha256()
    for number, request in enumerate(sample_requests):
        run = RunRequest.read(request | {"run_id": new_uuid7(NOON, noise=number.to_bytes(10))})
        digest.update(artifact_of(run)[0].to_bytes())
    # Counted before there was a vocabulary.
    assert digest.hexdigest() == "d53fcd79aaea270c94d3d4691eb5b723b0db1a65d123844d43c4aaaf686aef7a"


#: Few characters, so that drawing them takes little time.
LINES = st.text("aB7-_½木", min_size=1, max_size=12)
TEXTS = st.text('a \n\t"½\U0001f3b8', max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "parent_run_id": st.sampled_from(["0" * 32, "run_" + "f" * 32, "a-b_c"]),
    "parent_kind": st.sampled_from(["spec", "plan", "decision", "toolpaths", "execution", "run"]),
    "lineage": OBJECTS,
    "drift_detected": st.booleans(),
    "notes": TEXTS,
    "drift_summary": TEXTS,
}
SPOKEN = st.lists(st.sampled_from(sorted(WORDS - {"workflow_session_id"})), unique=True, max_size=5).flatmap(
    lambda words: st.fixed_dictionaries({word: st.none() | SPECIAL.get(word, LINES) for word in words})
)
METAS = OBJECTS.map(lambda meta: {name: value for name, value in meta.items() if name not in WORDS})


@given(words=SPOKEN, meta=METAS)
def test_a_request_survives_its_way_to_the_worker_and_says_the_same_twice(
    words: dict[str, Any], meta: dict[str, Any]
) -> None:
    run = RunRequest.read({**REQUEST, **words, "meta": meta})
    spoken = {word: value for word, value in words.items() if value is not None}
    assert run.meta == meta | spoken
    payload = CreateRun.read({"run": run}).to_json()
    read = CreateRun.read_json(payload)
    assert read.run == run
    assert read.to_json() == payload
    # The same words under meta are the same run.
    inside = RunRequest.read({**REQUEST, "run_id": run.run_id, "meta": meta | spoken})
    assert artifact_of(inside)[0].to_bytes() == artifact_of(read.run)[0].to_bytes()
    assert all(
        meta_text(run.meta, word) == value
        for word, value in spoken.items()
        if isinstance(value, str) and value
    )
