"""``rmos audit seal | rotate``: what an operator does to the log by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.acting import AsOption
from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, err, ledger_of, print_json
from rmos_runs.local.home import Home
from rmos_runs.operations.identity import current_identity
from rmos_shared.store.choice import chosen_store


def seal(
    *,
    every: Annotated[
        bool,
        typer.Option("--all", help="Look through the whole store, and seal as late what nobody told of."),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--accept-restored",
            help="Go on with a log that was restored from a backup: shorter than the ledger remembers.",
        ),
    ] = False,
    why: Annotated[
        str,
        typer.Option("--why", metavar="TEXT", help="The reason, kept with the act; for --accept-restored."),
    ] = "",
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Seal now what was published since the last seal. The process worker-audit may run at the same time.

    Needs the log's key (RMOS_AUDIT_KEY_FILE), and the broker, which keeps what is to be sealed.

    --json: seals, records, late, size, act_id.
    """
    from rmos_runs.operations.sealing import accept_restored, seal_now  # noqa: PLC0415 - as below

    if restored and not why.strip():
        raise typer.BadParameter("--accept-restored needs --why: it is on record")
    place = Home(home)
    store = chosen_store(place.store_settings())
    settings = place.audit_settings()
    act_id: str | None = None
    with ledger_of(home) as ledger:
        if restored:
            act_id = accept_restored(ledger, store, by=str(current_identity(alias)), why=why)
            err.print(f"on record as act {act_id}", markup=False)
        done = seal_now(ledger, settings, store, whole=every)
    if as_json:
        print_json(
            {
                "seals": done.seals,
                "records": done.records,
                "late": done.late,
                "size": done.size,
                "act_id": act_id,
            }
        )
        return
    late = f", {done.late} of them late" if done.late else ""
    typer.echo(f"sealed: {done.records} records{late}; the log has {done.size} entries")


def rotate_key(
    new_key: Annotated[
        Path, typer.Argument(metavar="NEW_KEY_FILE", help="The new private key; see rmos audit keygen.")
    ],
    *,
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="The reason, kept with the act; required.")
    ],
    alias: AsOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Introduce a new key of the log, signed by the one in use. It then says what to do next.

    Whoever has the old public key can go on with it: the log itself says that the new one is to be trusted.
    This is no help against a stolen key, for the thief can do the same: see docs/how-to/audit.md.

    --json: act_id, old_vkey, new_vkey, size.
    """
    from rmos_runs.operations.sealing import rotate  # noqa: PLC0415 - no other command needs it

    if not why.strip():
        raise typer.BadParameter("--why must not be blank: it is on record")
    place = Home(home)
    store = chosen_store(place.store_settings())
    with ledger_of(home) as ledger:
        done = rotate(
            ledger, place.audit_settings(), store, new_key, by=str(current_identity(alias)), why=why
        )
    if as_json:
        print_json(
            {"act_id": done.act_id, "old_vkey": done.old_vkey, "new_vkey": done.new_vkey, "size": done.size}
        )
        return
    typer.echo(done.new_vkey)
    err.print(
        f"the log trusts this key from size {done.size} on (act {done.act_id}). Now:\n"
        f"1. name {new_key} in RMOS_AUDIT_KEY_FILE, with its .pub beside it, and restart worker-audit;\n"
        "2. give auditors the new public key too, for proofs that it signs; the old one proves older ones;\n"
        "3. destroy the old private key once `rmos audit status` says that the new one signs.",
        markup=False,
    )
