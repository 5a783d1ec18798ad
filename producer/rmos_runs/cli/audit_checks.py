"""``rmos audit verify | check | script``: the verifier, one file that shares no line with the writer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, err
from rmos_runs.local.home import Home
from rmos_runs.operations.audit_log import configured_keys, log_origin
from rmos_shared.errors import RmosError
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.local import LocalStore

KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="VKEY|FILE",
        help="A public key of the log, or a file with one on each line; repeatable. Left out: that of the "
        "configured private key, and those before it that the .pub file beside it tells; none for a STORE "
        "that is named.",
    ),
]
VerifierJsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def verify(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE",
            help="A store's directory, or the address of its files. Left out: the configured store.",
        ),
    ] = None,
    *,
    keys: KeyOption = None,
    witnesses: Annotated[
        list[str] | None,
        typer.Option(
            "--witness", metavar="VKEY|FILE", help="The public key of a witness whose word must be there."
        ),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            "--since", metavar="CHECKPOINT_FILE", help="Leave the files of records before it unread."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="FILE",
            help="Remember the newest checkpoint there, for the next time. Left out: a file of the home, or "
            "of the user's state directory, for each store.",
        ),
    ] = None,
    no_state: Annotated[
        bool, typer.Option("--no-state", help="Remember nothing, and hold an old copy against nothing newer.")
    ] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--copy",
            help="A store in use, whose newest seal must not be late, or a copy. Left out: --live for the "
            "configured store.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=1_024, metavar="N", help="Processes; one for each core."),
    ] = None,
    as_json: VerifierJsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Tell whether anything in a store was changed or removed.

    It also finds what was swapped, back-dated or added out of turn. Runs the file that `rmos audit script`
    prints. Whatever it finds is named by kind, key and place, and makes the exit code 7;
    docs/how-to/verify-a-copy.md says what each kind means. Nothing in the store is changed.
    """
    place = Home(home)
    root = _root(place) if store is None else store
    words = ["verify", *(f"--key={key}" for key in keys or _configured(place, store))]
    words += [f"--witness={witness}" for witness in witnesses or ()]
    if since is not None:
        words.append(f"--since={since}")
    memory = None if no_state else state or _memory(place, root)
    if memory is not None:
        words.append(f"--state={memory}")
    if live if live is not None else store is None:
        words.append("--live")
    if jobs is not None:
        words.append(f"--jobs={jobs}")
    _run([*words, *_json(as_json), "--", root])


def check(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="The proof, a .tlog-proof file.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that it is of.")],
    *,
    keys: KeyOption = None,
    as_json: VerifierJsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Tell whether a file is the record that a log holds. The proof alone is enough: no store and no network.

    Without a key it only says what the proof claims. Where it is not proven the exit code is 7.
    """
    given = keys or _configured(Home(home), None)
    words = ["check", f"--key={given[0]}", *(f"--key={key}" for key in given[1:])] if given else ["check"]
    _run([*words, *_json(as_json), "--", str(proof), str(file)])


def script() -> None:
    """Print the verifier, one file that needs no program of ours. It needs only Python and cryptography.

    rmos audit script > verifier.py; python3 -I verifier.py verify STORE --key KEY
    """
    from rmos_runs.auditor import verifier  # noqa: PLC0415 - as below

    sys.stdout.buffer.write(Path(verifier.__file__).read_bytes())
    sys.stdout.buffer.flush()


def _run(words: list[str]) -> None:
    from rmos_runs.auditor import verifier  # noqa: PLC0415 - no other command needs it

    sys.stdout.flush()
    code = verifier.main(words)
    sys.stdout.flush()
    if code:
        raise typer.Exit(code)


def _root(home: Home) -> str:
    settings = home.store_settings()
    chosen_store(settings).identity()  # one that is away is an error, not an empty one
    return str(settings.runs_dir)


def _configured(home: Home, store: str | None) -> list[str]:
    """Return the configured key and those before it, for the configured store alone."""
    settings = home.audit_settings()
    if store is not None or (settings.audit_key is None and settings.audit_key_file is None):
        return []
    from rmos_shared.auditlog.configured import signer_of  # noqa: PLC0415 - as above

    signer = signer_of(settings, log_origin(home))
    return [] if signer is None else configured_keys(settings, signer)


def _memory(home: Home, store: str) -> Path | None:
    """Return where to remember the newest checkpoint: by the store's own id, for two may be of one name."""
    if "://" in store:
        err.print("nothing is remembered of this log: give --state FILE for the next time", style="yellow")
        return None
    directory = (home.root if home.root.is_dir() else _state_home() / "rmos-runs") / "audit"
    try:
        name = LocalStore(Path(store)).identity().store_id
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (RmosError, OSError) as error:
        # Remembering is an extra; what is wrong with the store is for the verifier to say.
        err.print(f"nothing is remembered ({type(error).__name__}): give --state FILE", markup=False)
        return None
    return directory / f"{name}.checkpoint"


def _state_home() -> Path:
    told = os.environ.get("XDG_STATE_HOME", "")
    return Path(told) if Path(told).is_absolute() else Path.home() / ".local/state"


def _json(as_json: bool) -> list[str]:  # noqa: FBT001 - one of two
    return ["--json"] if as_json else []
