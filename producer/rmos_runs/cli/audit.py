"""``rmos audit``: the log that proves to a stranger that the record is unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.audit_checks import check, script, verify
from rmos_runs.cli.audit_proofs import prove
from rmos_runs.cli.audit_seals import rotate_key, seal
from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    HomeOption,
    JsonOption,
    err,
    ledger_if_up,
    print_json,
    print_rows,
    store_of,
)
from rmos_runs.cli.status_view import span
from rmos_runs.cli.table import Row
from rmos_runs.cli.witness import witness
from rmos_runs.local.home import Home
from rmos_runs.operations.audit_log import configured_keys, log_origin
from rmos_runs.operations.audit_status import AuditStatus, audit_status
from rmos_runs.operations.sealing_status import SealingStatus
from rmos_runs.operations.timestamps import stamps
from rmos_shared.auditlog.entry import format_time
from rmos_shared.auditlog.note import KeyKind, Signer
from rmos_shared.auditlog.timestamp import certificates
from rmos_shared.errors import CorruptArtifact, SettingsInvalid
from rmos_shared.models.base import format_utc

app = typer.Typer(no_args_is_help=True)


def keygen(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Where the private key goes; never over a file. Left out: audit.pem of the home, where "
            "rmos up finds it.",
        ),
    ] = None,
    *,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Make a witness's key of this name, such as witness.example/w1."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make the log's private key, or a witness's. The public key is printed: that is what auditors get.

    The private key is for its owner alone (mode 0600). Keep a copy of it where the store is not, and give the
    public one to auditors by a way that does not lead through this system. RMOS_AUDIT_KEY_FILE names it to
    worker-audit; a key in the home need not be named.
    """
    from rmos_runs.auditor.key_file import make_key, public_file  # noqa: PLC0415 - no other command needs it

    if file is None and name is not None:
        raise typer.BadParameter("a witness's key belongs into no home; name a file")
    file = file or Home(home).audit_key_file
    kind = KeyKind.ED25519 if name is None else KeyKind.COSIGNATURE
    signer = make_key(file, log_origin(Home(home)) if name is None else name, kind)
    _print_key(signer, as_json=as_json, file=str(file), public_file=str(public_file(file)))
    if not as_json:
        err.print(
            f"private key: {file}; public key, for auditors: above, and in {public_file(file)}", markup=False
        )


def key(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Print the public key of the configured private key. Auditors verify with it.

    Below it those that it followed, newest first, as `rmos audit rotate` wrote them beside the private key.

    --json: vkey, name, earlier.
    """
    place = Home(home)
    signer = _signer(place)
    if signer is None:
        raise SettingsInvalid(
            "no key is configured: make one by `rmos audit keygen FILE`, and name it in RMOS_AUDIT_KEY_FILE"
        )
    _, *earlier = configured_keys(place.audit_settings(), signer)
    _print_key(signer, as_json=as_json, earlier=earlier)
    if not as_json:
        for vkey in earlier:
            typer.echo(vkey)


def status(*, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """Show the log's size, its newest checkpoint and key. It also tells how much waits to be sealed."""
    place = Home(home)
    store = store_of(home)
    signer = _signer(place)
    with ledger_if_up(home, "how much is unsealed is not known") as ledger:
        found = audit_status(store, signer, ledger, datetime.now(UTC))
    if as_json:
        print_json(found.dump())
        return
    for name, value in _told(found):
        typer.echo(f"{name:<12}{value}")


def _told(found: AuditStatus) -> Iterator[tuple[str, str]]:
    waits = _waits(found.sealing)
    if not found.size:
        yield "log", "nothing is sealed yet"
        yield "unsealed", waits
        yield "key", found.key or "none configured"
        return
    yield "log", str(found.origin)
    yield "size", f"{found.size} entries"
    yield "root", str(found.root)
    if found.sealed_at is not None and found.next_at is not None:
        yield "sealed", f"{format_time(found.sealed_at)}, {found.age_seconds:.0f} s ago"
        late = ", which is past: nobody seals; look at worker-audit" if found.overdue else ""
        yield "next", f"by {format_time(found.next_at)}{late}"
    yield "signed by", ", ".join(found.signed_by) or "nobody: no key was configured"
    yield "witnesses", ", ".join(found.witnesses) or "none"
    yield "unsealed", waits
    if found.key is not None:
        yield "key", f"{found.key} ({'' if found.key_signed else 'not '}the one that signed)"


def _waits(sealing: SealingStatus | None) -> str:
    if sealing is None:
        return "not known"
    oldest = sealing.oldest_unsealed_seconds
    since = "" if oldest is None else f", the oldest for {span(oldest)}"
    said = f"{sealing.unsealed} publications and acts{since}"
    if sealing.dead_job is not None:
        return f"{said}; the seal job is dead: rmos dlq show {sealing.dead_job}"
    return said


def timestamps(
    *,
    tsa_cert: Annotated[
        Path | None,
        typer.Option(
            "--tsa-cert",
            envvar="RMOS_TSA_CERT_FILE",
            metavar="FILE",
            help="PEM file with the certificates that the authority's signatures must lead to.",
        ),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the log's time stamps, each held against its checkpoint.

    One that does not fit makes the exit code 7. Without certificates only the hash is compared, not who
    signed it.
    """
    store = store_of(home)
    roots = [] if tsa_cert is None else certificates(_read(tsa_cert), name=str(tsa_cert))
    if not roots:
        err.print("no --tsa-cert: the authority's signatures are not proven", style="yellow")
    damage = Damage()

    def rows() -> Iterator[Row]:
        for stamp in stamps(store, roots):
            if stamp.problem is not None:
                damage.tell(CorruptArtifact(stamp.key, stamp.problem))
            yield {
                "key": stamp.key,
                "size": stamp.size,
                "stamped_at_utc": None if stamp.at is None else format_utc(stamp.at),
                "signature": None if stamp.at is None else "proven" if roots else "not looked at",
                "problem": stamp.problem,
            }

    print_rows(rows(), as_json=as_json, title="time stamps")
    damage.exit()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"{file} cannot be read: {error.strerror}") from error


def _signer(home: Home) -> Signer | None:
    from rmos_shared.auditlog.configured import signer_of  # noqa: PLC0415 - it reads keys, as few commands do

    return signer_of(home.audit_settings(), log_origin(home))


def _print_key(signer: Signer, *, as_json: bool, **more: object) -> None:
    if as_json:
        print_json({"vkey": signer.vkey, "name": signer.name, **more})
    else:
        typer.echo(signer.vkey)


# By reader, in the order in which the help lists them: the shop,
app.command("keygen")(keygen)
app.command("key")(key)
app.command("status")(status)
app.command("seal")(seal)
app.command("rotate")(rotate_key)
app.command("prove")(prove)
# the auditor,
app.command("verify")(verify)
app.command("check")(check)
app.command("script")(script)
app.command("timestamps")(timestamps)
# and the witness.
app.command("witness")(witness)
