"""``rmos audit``: the log that proves to a stranger that the record is unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.auditor.key_file import make_key, public_file
from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, err, print_json
from rmos_runs.cli.witness import witness
from rmos_runs.local.home import Home
from rmos_runs.operations.sealing import log_origin, signer_of
from rmos_shared.auditlog.note import KeyKind, Signer
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.audit import AuditSettings

app = typer.Typer(no_args_is_help=True)
app.command("witness")(witness)


@app.command()
def keygen(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the private key goes; never over a file.")
    ],
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Make a witness's key of this name, such as witness.example/w1."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make the log's private key, or a witness's, and print the public one: that is what auditors get.

    The private key is for its owner alone (mode 0600). Keep a copy of it where the store is not, and give the
    public one to auditors by a way that does not lead through this system. RMOS_AUDIT_KEY_FILE names the file
    to worker-audit.
    """
    kind = KeyKind.ED25519 if name is None else KeyKind.COSIGNATURE
    signer = make_key(file, log_origin(Home(home)) if name is None else name, kind)
    _print_key(signer, as_json=as_json, file=str(file), public_file=str(public_file(file)))
    if not as_json:
        err.print(
            f"private key: {file}; public key, for auditors: above, and in {public_file(file)}", markup=False
        )


@app.command()
def key(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Print the public key of the configured private key: what auditors verify with."""
    place = Home(home)
    signer = signer_of(AuditSettings.load(), log_origin(place))
    if signer is None:
        raise SettingsInvalid(
            "no key is configured: make one by `rmos audit keygen FILE`, and name it in RMOS_AUDIT_KEY_FILE"
        )
    _print_key(signer, as_json=as_json)


def _print_key(signer: Signer, *, as_json: bool, **more: str) -> None:
    if as_json:
        print_json({"vkey": signer.vkey, "name": signer.name, **more})
    else:
        typer.echo(signer.vkey)
