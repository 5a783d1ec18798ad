"""What an advisory store's answer says of our own settings: pure decisions, for the worker and doctor."""

from __future__ import annotations

import json
from http import HTTPStatus

ASSETS_PATH = "/api/advisory/assets"
_TOKEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_PATH = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
#: As servers answer for a path that they do not know: the reference store, and FastAPI as it comes.
_UNKNOWN_PATH = (("error", "NOT_FOUND"), ("detail", "Not Found"))


def mistake_behind(method: str, status: int, *, content_type: str = "", body: bytes = b"") -> str | None:
    """Return what an operator must repair when the store answers a call for an asset so, or None.

    404 to a GET says that there is no such asset, unless ``body`` or its type shows that whoever answers
    knows nothing of assets at all; in doubt it is taken for the first.
    """
    if status in _TOKEN:
        return "check RMOS_ADVISORY_TOKEN"
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "redirects are not followed; set RMOS_ADVISORY_URL to the address it points to"
    if status not in _PATH:
        return None
    if method == "GET" and status == HTTPStatus.NOT_FOUND and not _of_no_store(content_type, body):
        return None
    return f"what answers there knows no {ASSETS_PATH}; check RMOS_ADVISORY_URL"


def _of_no_store(content_type: str, body: bytes) -> bool:
    if content_type.partition(";")[0].strip().lower() == "text/html":
        return True
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and any(answer.get(key) == value for key, value in _UNKNOWN_PATH)
