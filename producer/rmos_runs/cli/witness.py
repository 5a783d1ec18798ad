"""``rmos audit witness``: cosign another's log as long as it only grows."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmos_runs.cli.context import JsonOption, err, print_json
from rmos_shared.clock import SystemClock
from rmos_shared.errors import SettingsInvalid, StoreUnavailable
from rmos_shared.models.base import format_utc
from rmos_shared.store.base import ArtifactStore

if TYPE_CHECKING:
    from rmos_runs.auditor.witness import Observed, Witness


def witness(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="The log: a store's directory, or the address of a gateway's audit log, "
            "https://host/api/rmos/audit.",
        ),
    ],
    *,
    key: Annotated[
        Path,
        typer.Option("--key", metavar="FILE", help="Its private key, as rmos audit keygen --name makes it."),
    ],
    state: Annotated[
        Path,
        typer.Option(
            "--state", metavar="DIR", help="What it remembers; one directory for each log, never shared."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Its key's name; left out, that of FILE.pub beside the key.")
    ] = None,
    log_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--log-key",
            metavar="VKEY|FILE",
            help="Cosign only what this public key of the log signed; repeatable.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=1, max=86_400, metavar="SECONDS", help="Time between two looks.")
    ] = 60.0,
    publish: Annotated[
        bool, typer.Option("--publish", help="Put each cosignature into the store, where verifiers look.")
    ] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file", metavar="FILE", help="File that holds the gateway's API key, role audit."
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, max=600, metavar="SECONDS", help="Longest wait for one read."),
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Cosign a log's newest checkpoint, as long as it only grew.

    Its tiles must prove that it only grew since the last one. Run the witness on another machine, with a key
    that the log's owner does not hold. What it signs is in its state, for good, before anybody sees the
    signature. A log that was cut or rewritten is not signed, ever: both checkpoints are named, and the exit
    code is 7. While the log cannot be reached it waits, with --once it ends with 6.
    """
    from rmos_runs.auditor.key_file import named_signer, verifiers_of  # noqa: PLC0415 - no other command needs it
    from rmos_runs.auditor.log_source import DirectorySource, TimedSource, source_of  # noqa: PLC0415
    from rmos_runs.auditor.witness import Witness  # noqa: PLC0415
    from rmos_runs.auditor.witness_state import WitnessState  # noqa: PLC0415
    from rmos_shared.auditlog.note import KeyKind  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _stop)
    signer = named_signer(key, name, KeyKind.COSIGNATURE)
    trusted = [verifier for log_key in log_keys or () for verifier in verifiers_of(log_key)]
    try:
        source = source_of(store, api_key=_secret(api_key_file), timeout_seconds=timeout)
    except ValueError as error:
        raise typer.BadParameter(f"STORE: {error}") from None
    if publish and not isinstance(source, DirectorySource):
        raise typer.BadParameter("--publish writes into a store's directory; a gateway serves reads alone")
    target = source.store if publish and isinstance(source, DirectorySource) else None
    memory = WitnessState(state)
    with memory.held():
        timed = TimedSource(source, timeout)
        observer = Witness(timed, signer, memory, SystemClock(), log_keys=trusted)
        if once:
            _tell(_look(observer, target), as_json=as_json, quiet=False)
            return
        _watch(observer, target, every, as_json=as_json)


def _watch(observer: Witness, target: ArtifactStore | None, every: float, *, as_json: bool) -> None:
    first = True
    while True:
        try:
            _tell(_look(observer, target), as_json=as_json, quiet=not first)
            first = False
        except StoreUnavailable as error:
            err.print(f"waiting: {error}", markup=False, style="yellow")
        time.sleep(every)


def _look(observer: Witness, target: ArtifactStore | None) -> Observed:
    observed = observer.look()
    if target is not None and observed.cosigned is not None:
        observer.publish(observed.cosigned, target)
    return observed


def _tell(observed: Observed, *, as_json: bool, quiet: bool) -> None:
    cosigned, before = observed.cosigned, observed.before
    if quiet and not observed.new:
        return
    told: dict[str, Any] = {
        "outcome": "nothing sealed yet"
        if cosigned is None
        else "cosigned"
        if observed.new
        else "nothing new",
        "size": None if cosigned is None else cosigned.checkpoint.size,
        "root": None if cosigned is None else cosigned.checkpoint.root.hex(),
        "cosigned_at_utc": None if cosigned is None else format_utc(cosigned.at),
        "size_before": None if before is None else before.size,
    }
    if as_json:
        print_json(told)
        return
    if cosigned is None:
        typer.echo("nothing is sealed yet")
        return
    since = "the first that it sees" if before is None else f"it continues size {before.size}"
    typer.echo(
        f"{told['outcome']}: {cosigned.checkpoint.origin} size {cosigned.checkpoint.size}"
        + (f", {since}" if observed.new else f", cosigned at {told['cosigned_at_utc']}")
    )


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"--api-key-file: {file} cannot be read ({type(error).__name__})") from error


def _stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt
