"""Just enough of DER to put right what some time-stamp authorities leave out of order.

The certificates of a token are a SET, which DER has sorted. OpenSSL, and authorities built on it, write them
as they come, and a strict parser refuses that. No signature covers their order.
"""

from __future__ import annotations

_SEQUENCE = 0x30
_CONTEXT_0 = 0xA0
_LONG_FORM = 0x80


def with_sorted_certificates(answer: bytes) -> bytes:
    """Return a TimeStampResp whose token's certificates are in DER's order; anything else as it is."""
    try:
        start, end = _certificates(answer)
        spans = _elements(answer, start, end)
    except (ValueError, IndexError):
        return answer
    ordered = sorted(answer[first:last] for _, _, first, last in spans)
    return answer[:start] + b"".join(ordered) + answer[end:]


def _certificates(answer: bytes) -> tuple[int, int]:
    """Return where the certificates begin and end: in SignedData, within ContentInfo, within the answer."""
    place, end = 0, len(answer)
    # The tag of each step down, and which element of its parent it is.
    for tag, number in ((_SEQUENCE, 0), (_SEQUENCE, 1), (_CONTEXT_0, 1), (_SEQUENCE, 0), (_CONTEXT_0, 3)):
        found, inside, _, last = _elements(answer, place, end)[number]
        if found != tag:
            raise ValueError("not a time stamp with certificates")
        place, end = inside, last
    return place, end


def _elements(data: bytes, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Return tag, begin of the content, begin and end of each element between two places."""
    elements = []
    while start < end:
        length, content = data[start + 1], start + 2
        if length >= _LONG_FORM:
            content += length - _LONG_FORM
            length = int.from_bytes(data[start + 2 : content])
        if content + length > end:
            raise ValueError("an element is longer than what it lies in")
        elements.append((data[start], content, start, content + length))
        start = content + length
    return elements
