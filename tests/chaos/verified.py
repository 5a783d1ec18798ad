"""The audit log after all that: sealed to its end, and verified as a stranger would."""

from __future__ import annotations

import json
from collections import Counter

from chaos.system import System

#: What may be found: a sealer that was away leaves a gap, and a file whose writer was killed, and that nobody
#: told of within two minutes, is late. Both are in the log, and named.
_EXPECTED = frozenset({"gap", "late"})


def look(system: System) -> Counter[str]:
    """Return what the verifier finds, by kind; anything that is not expected is a breach."""
    sealed = system.rmos("audit", "seal", "--all")
    if sealed.returncode:
        system.breach(
            f"the audit log cannot be sealed at the end ({sealed.returncode}): {sealed.stderr[-300:]}"
        )
    ended = system.rmos("audit", "verify", "--no-state", "--json")
    try:
        findings = json.loads(ended.stdout)["findings"]
    except (ValueError, KeyError):
        system.breach(f"the audit log cannot be verified ({ended.returncode}): {ended.stderr[-300:]}")
        return Counter()
    for finding in findings:
        if finding["kind"] not in _EXPECTED:
            system.breach(f"the verifier finds {finding['kind']}: {finding['key']}: {finding['detail']}")
    return Counter(finding["kind"] for finding in findings)
