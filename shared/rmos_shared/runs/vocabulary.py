"""The words that readers and filters look for in a run's ``meta`` (contract section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Where the predecessor wrote the same thing under another name, besides inside ``lineage``.
_ALSO = {"session_id": ("workflow_session_id",)}


def meta_text(meta: Mapping[str, Any], name: str) -> str | None:
    """Return what ``meta`` says under a name of the vocabulary, or None.

    It is looked for under the name itself, then under the name that older runs use, then the same inside
    ``lineage``. A value that is no text counts as missing.
    """
    lineage = meta.get("lineage")
    for place in (meta, lineage if isinstance(lineage, dict) else {}):
        for key in (name, *_ALSO.get(name, ())):
            value = place.get(key)
            if isinstance(value, str) and value:
                return value
    return None
