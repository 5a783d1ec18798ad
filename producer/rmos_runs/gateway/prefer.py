"""``Prefer: wait=N`` (RFC 7240): pure reading of it."""

from __future__ import annotations

import re

_WAIT = re.compile(r"wait=\"?(\d{1,6})\"?", re.ASCII)


def wait_seconds(header: str | None, most_seconds: float) -> float | None:
    """Return how long a caller prefers to wait, cut to ``most_seconds``; None when it does not.

    What is unknown or malformed is passed over, as the standard asks; of several the first counts.
    """
    for part in (header or "").split(","):
        preference = _WAIT.fullmatch(part.partition(";")[0].strip().lower())
        if preference:
            return min(float(preference[1]), most_seconds)
    return None
