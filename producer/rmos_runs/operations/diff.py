"""Two artifacts as text, line against line; never the text of a G-code program. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from rmos_shared.canonical import sha256_hex
from rmos_shared.models.base import Frozen, SafeId, Utf8Text
from rmos_shared.runs.model import RunArtifact

#: Comparing lines may cost the square of their number. What differs in more lines of either side than this
#: is cut there.
MOST_COMPARED_LINES = 2_000
#: A longer line is cut in the preview.
MOST_LINE_CHARACTERS = 400
#: Names under which a G-code program lies, also inside of what older systems wrote.
_GCODE = frozenset({"gcode_text", "gcode"})
_CONTEXT_LINES = 3

Opcode = tuple[str, int, int, int, int]


class RunDiff(Frozen):
    """A preview for people; ``compare`` has the differences as values."""

    left_id: SafeId
    right_id: SafeId
    diff_kind: Literal["unified"] = "unified"
    #: Empty when nothing differs but G-code of the same hash.
    preview: Utf8Text
    #: Lines are missing from the preview, or were cut.
    truncated: bool


def unified_diff(left: RunArtifact, right: RunArtifact, *, most_lines: int) -> RunDiff:
    """Return what differs between the canonical JSON of two artifacts, indented, in the unified form.

    In the place of G-code stand its size and hash. The time is bounded by ``MOST_COMPARED_LINES``, the
    preview by ``most_lines`` of up to ``MOST_LINE_CHARACTERS``.
    """
    one, other = _lines(left), _lines(right)
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])
    # What is alike on both ends costs nothing; some of it is shown around the difference.
    first = max(0, start - _CONTEXT_LINES)
    one_part, one_cut = _window(one, first, end)
    other_part, other_cut = _window(other, first, end)
    wanted = [] if one_part == other_part else _hunks(left, right, first, one_part, other_part)
    shown = list(islice(wanted, most_lines + 1))
    cut = [line[:MOST_LINE_CHARACTERS] for line in shown[:most_lines]]
    return RunDiff(
        left_id=left.run_id,
        right_id=right.run_id,
        preview="".join(f"{line}\n" for line in cut),
        truncated=one_cut or other_cut or len(shown) > most_lines or cut != shown[:most_lines],
    )


def _lines(run: RunArtifact) -> list[str]:
    text = json.dumps(_without_gcode(run.dump()), sort_keys=True, indent=2, ensure_ascii=False)
    return text.split("\n")


def _without_gcode(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _fingerprint(item) if name in _GCODE and isinstance(item, str) else _without_gcode(item)
            for name, item in value.items()
        }
    return [_without_gcode(item) for item in value] if isinstance(value, list) else value


def _fingerprint(gcode: str) -> dict[str, object]:
    data = gcode.encode()
    return {"bytes": len(data), "sha256": sha256_hex(data)}


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def _window(lines: Sequence[str], first: int, end: int) -> tuple[Sequence[str], bool]:
    last = min(len(lines), len(lines) - end + _CONTEXT_LINES)
    most = first + MOST_COMPARED_LINES
    return lines[first : min(last, most)], last > most


def _hunks(
    left: RunArtifact, right: RunArtifact, offset: int, one: Sequence[str], other: Sequence[str]
) -> Iterator[str]:
    yield f"--- {left.run_id}"
    yield f"+++ {right.run_id}"
    matcher = difflib.SequenceMatcher(None, one, other)
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        _, one_from, _, other_from, _ = group[0]
        _, _, one_to, _, other_to = group[-1]
        yield (
            f"@@ -{_range(offset + one_from, one_to - one_from)} "
            f"+{_range(offset + other_from, other_to - other_from)} @@"
        )
        for opcode in group:
            yield from _group_lines(opcode, one, other)


def _group_lines(opcode: Opcode, one: Sequence[str], other: Sequence[str]) -> Iterator[str]:
    tag, one_from, one_to, other_from, other_to = opcode
    if tag == "equal":
        yield from (f" {line}" for line in one[one_from:one_to])
        return
    yield from (f"-{line}" for line in one[one_from:one_to])
    yield from (f"+{line}" for line in other[other_from:other_to])


def _range(start: int, length: int) -> str:
    # As patch(1) counts: from 1, save that an empty range names the line before it.
    if length == 1:
        return f"{start + 1}"
    return f"{start + 1 if length else start},{length}"
