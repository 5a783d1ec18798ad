"""How many things the verifier finds in a store, by the very file that strangers run."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

from rmos_runs.auditor import verifier
from rmos_shared.errors import StoreUnavailable


def found(root: Path, vkey: str) -> int:
    """Return the number of findings in the store in ``root``, whose log is signed by ``vkey``.

    Raises:
        StoreUnavailable: it could not be verified; the verifier has said why.
    """
    told = io.StringIO()
    with redirect_stdout(told):
        code = verifier.main(["verify", str(root), f"--key={vkey}", "--json"])
    if code not in {verifier.CLEAN, verifier.FOUND}:
        raise StoreUnavailable(f"the audit log in {root} could not be verified; `rmos audit verify` says why")
    return len(json.loads(told.getvalue())["findings"])
