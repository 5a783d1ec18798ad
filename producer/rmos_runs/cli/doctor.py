"""``rmos doctor``: is everything as the guarantees need it?"""

from __future__ import annotations

from dataclasses import asdict

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, print_rows
from rmos_runs.local.home import Home
from rmos_runs.operations.checks import findings
from rmos_shared.errors import DamageFound, InvariantBroken


def doctor(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Check that all is as the guarantees need it.

    Looks at settings, processes, stores and files, the index, the broker, the clock, the ledger with its
    invariant, dead letters, pauses, webhooks and the audit log.

    Exits with 8 when the invariant is broken, with 7 when anything else is.
    """
    rows = [asdict(finding) for finding in findings(Home(home))]
    print_rows(rows, as_json=as_json, title="doctor")
    broken = {row["check"] for row in rows if row["state"] == "broken"}
    if "invariant" in broken:
        raise InvariantBroken("accepted = done + dead + discarded + pending does not hold")
    if broken:
        raise DamageFound(f"not well: {', '.join(sorted(broken))}; see what to do above")
