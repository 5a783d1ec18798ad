"""A JSON document is cut into its values whatever its chunks, and damage costs no more than it must."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_runs.operations.migration.json_stream import JsonStream, Span

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\{}[],:é\n'), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('k"\\}'), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
DOCUMENTS = st.lists(VALUES, max_size=5) | st.dictionaries(
    st.text(st.sampled_from('k"\\}é'), max_size=5), VALUES, max_size=5
)


def cut(data: bytes, *, chunk: int = 1 << 20, most: int = 1 << 20) -> list[Span]:
    file = io.BytesIO(data)
    return list(JsonStream(lambda size: file.read(min(size, chunk)), most_bytes=most).spans())


@settings(deadline=None)
@given(document=DOCUMENTS, chunk=st.integers(1, 9), indent=st.sampled_from([None, 1]), bom=st.booleans())
def test_every_value_comes_out_whatever_the_chunks(
    document: Any,
    chunk: int,
    indent: int | None,
    bom: bool,  # noqa: FBT001 - hypothesis gives it by name
) -> None:
    data = b"\xef\xbb\xbf" * bom + json.dumps(document, indent=indent, ensure_ascii=False).encode() + b" \n"
    spans = cut(data, chunk=chunk)
    assert all(span.data is not None for span in spans)
    whole = list(document.values()) if isinstance(document, dict) else document
    assert [json.loads(span.data or b"") for span in spans] == whole
    assert [span.key for span in spans] == (
        list(document) if isinstance(document, dict) else [None] * len(whole)
    )


@settings(deadline=None)
@given(document=DOCUMENTS, chunk=st.integers(1, 9))
def test_too_large_values_are_passed_over_and_the_rest_goes_on(document: Any, chunk: int) -> None:
    whole = list(document.values()) if isinstance(document, dict) else document
    spans = cut(json.dumps(document).encode(), chunk=chunk, most=8)
    assert len(spans) == len(whole)
    for span, value in zip(spans, whole, strict=True):
        assert span.reason == "larger than 8 bytes" if span.data is None else json.loads(span.data) == value


@settings(deadline=None)
@given(document=DOCUMENTS, chunk=st.integers(1, 9), data=st.data(), most=st.sampled_from([8, 1 << 20]))
def test_a_cut_document_says_so_at_its_end(document: Any, chunk: int, data: st.DataObject, most: int) -> None:
    text = json.dumps(document).encode()
    end = data.draw(st.integers(0, len(text) - 1))
    reason = cut(text[:end], chunk=chunk, most=most)[-1].reason
    assert reason is not None
    assert reason.startswith("the file ends")


def test_damage_inside_a_value_costs_that_value() -> None:
    spans = cut(b'{"a": {"x": nope}, "b": {"y": NaN}, "c": 5}')
    assert [span.data for span in spans] == [b'{"x": nope}', b'{"y": NaN}', b"5"]


@pytest.mark.parametrize(
    ("data", "good", "word"),
    [
        (b"", 0, "ends before"),
        (b"5", 0, "neither a JSON object nor a list"),
        (b'{"a":1,}', 1, "a key should stand here, at byte 7"),
        (b"[1,,2]", 1, "a value should stand here"),
        (b"[1 2]", 1, "a ] should stand here"),
        (b'{"a" 1}', 0, "a : should stand here"),
        (b"[1]x", 1, "goes on after its JSON"),
        (b"[" + b"1" * 70_000, 0, "not JSON"),
    ],
)
def test_a_damaged_document_says_where(data: bytes, good: int, word: str) -> None:
    *fine, last = cut(data)
    assert (len(fine), last.data) == (good, None)
    assert last.reason is not None
    assert word in last.reason


def test_a_key_that_is_no_text_is_none() -> None:
    assert [span.key for span in cut(b'{"\\ud800": 1, "\\q": 2}')] == [None, None]
