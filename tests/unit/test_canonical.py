"""Canonical JSON and its hash: the contract's rule, and every value that it refuses."""

from __future__ import annotations

import enum
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.canonical import (
    MAX_DEPTH,
    MAX_INTEGER_BITS,
    canonical_json,
    canonical_sha256,
    check_json,
    sha256_hex,
)
from rmos_shared.errors import InvalidRequest

#: All text that UTF-8 can carry: "Cs" are the surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LARGEST = 2**MAX_INTEGER_BITS - 1
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=30
)


class Word(str):
    __slots__ = ()


class Colour(enum.StrEnum):
    RED = "RED"


class Number(enum.IntEnum):
    ONE = 1


class Fraction(float):
    __slots__ = ()


def by_the_contract(obj: object) -> bytes:
    # The rule as contract section 2 states it, word for word.
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def refusal(obj: object) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        check_json(obj)
    (problem,) = caught.value.problems
    return problem.field, problem.reason


@given(JSON)
def test_every_json_value_is_written_by_the_contracts_rule(obj: Any) -> None:
    assert canonical_json(obj) == by_the_contract(obj)


@given(JSON)
def test_every_json_value_is_hashed_by_the_contracts_rule(obj: Any) -> None:
    assert canonical_sha256(obj) == hashlib.sha256(by_the_contract(obj)).hexdigest()


@given(JSON)
def test_what_is_written_reads_back_and_is_written_the_same(obj: Any) -> None:
    written = canonical_json(obj)
    assert canonical_json(json.loads(written)) == written


@given(st.dictionaries(TEXT, SCALARS, min_size=2))
def test_the_order_of_keys_does_not_count(obj: dict[str, Any]) -> None:
    assert canonical_sha256(dict(reversed(obj.items()))) == canonical_sha256(obj)


@pytest.mark.parametrize(
    ("obj", "written", "digest"),
    [
        ({}, "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (
            {"b": [1, 2.50, None], "a": "½ é\u2028"},
            '{"a":"½ é\u2028","b":[1,2.5,null]}',
            "921bf27b036e816194dd8d497b0345e554e74260802f796ce6adfc6fa308ab82",
        ),
    ],
    ids=["empty", "mixed"],
)
def test_the_bytes_are_the_same_for_ever(obj: Any, written: str, digest: str) -> None:
    assert canonical_json(obj) == written.encode()
    assert canonical_sha256(obj) == sha256_hex(written.encode()) == digest


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "NaN and infinity"),
        (float("inf"), "NaN and infinity"),
        (float("-inf"), "NaN and infinity"),
        ("a\ud800b", "lone surrogate"),
        ("\udfff", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({5: 1}, "key of type int"),
        ({None: 1}, "key of type NoneType"),
        ({True: 1}, "key of type bool"),
        ({Word("k"): 1}, "key of type Word"),
        ((1, 2), "type tuple"),
        (b"bytes", "type bytes"),
        ({1, 2}, "type set"),
        (object(), "type object"),
        (Word("w"), "type Word"),
        (Colour.RED, "type Colour"),
        (Number.ONE, "type Number"),
        (Fraction(0.5), "type Fraction"),
        (LARGEST + 1, "integer of more than 1023 bits"),
        (-LARGEST - 1, "integer of more than 1023 bits"),
        (10**5_000, "integer of more than 1023 bits"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else type(value).__name__,
)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: value, "value"),
        (lambda value: {"ok": 1, "a": value}, "a"),
        (lambda value: [1, value], "1"),
        (lambda value: {"a": [{}, {"b c": [value]}]}, "a.1.b c.0"),
    ],
    ids=["alone", "in-object", "in-list", "deep"],
)
def test_what_json_cannot_carry_is_refused_with_its_path(
    value: Any, reason: str, wrap: Any, path: str
) -> None:
    field, told = refusal(wrap(value))
    assert field == path
    assert told.startswith(reason)


def test_the_path_is_printable_even_below_an_odd_key() -> None:
    field, _ = refusal({"a\nb": {"é": float("nan")}})
    assert field == "a\nb.é"
    field.encode()


@pytest.mark.parametrize("verb", [check_json, canonical_json, canonical_sha256])
def test_every_verb_refuses(verb: Any) -> None:
    with pytest.raises(InvalidRequest, match="invalid JSON value: a: NaN"):
        verb({"a": float("nan")})


@pytest.mark.parametrize(
    "value", [LARGEST, -LARGEST, -0.0, 5e-324, 1.7976931348623157e308, "", "\0", "\U0010ffff"], ids=range(8)
)
def test_what_json_carries_exactly_passes(value: Any) -> None:
    assert repr(json.loads(canonical_json({"v": value}))["v"]) == repr(value)


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_nesting_has_an_exact_limit(kind: str) -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value] if kind == "list" else {"k": value}
        return value

    assert canonical_json(nested(MAX_DEPTH)) == by_the_contract(nested(MAX_DEPTH))
    field, reason = refusal(nested(MAX_DEPTH + 1))
    assert field == ("0.0.0" if kind == "list" else "k.k.k")
    assert reason == "nested deeper than 100 levels"


def test_a_hundred_thousand_brackets_do_not_exhaust_the_stack() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert refusal(value)[1] == "nested deeper than 100 levels"


def test_a_value_that_holds_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    assert refusal(value)[1] == "nested deeper than 100 levels"
