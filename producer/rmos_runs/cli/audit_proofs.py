"""``rmos audit prove``: the proofs of a run's records, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rmos_runs.cli.context import DEFAULT_HOME, HomeOption, JsonOption, err, print_rows, store_of
from rmos_runs.cli.sink import Sink
from rmos_runs.operations.folder import Folders
from rmos_runs.operations.proofs import Prover, Stored
from rmos_shared.auditlog.proof import SUFFIX
from rmos_shared.errors import CorruptArtifact, TryLater
from rmos_shared.runs.reader import RunReader


class NotSealed(TryLater):
    """A record is in no seal yet."""

    code = "NOT_SEALED"


def prove(
    run_id: Annotated[str, typer.Argument(help="The run.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to write; by default RUN_ID-proof."),
    ] = None,
    newest: Annotated[
        bool,
        typer.Option(
            "--newest",
            help="Against the newest checkpoint, with what witnesses signed of it; by default against the "
            "first that holds the record, so that the proof is the same whenever it is made.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write the proofs of all records of a run.

    The records are its artifact, links, reviews, failed attempts and attachments. Each proof is checked by
    `rmos audit check PROOF FILE`. `rmos runs pack` puts the same into the run's pack, with the files. A
    record that is not sealed yet is named, and makes the exit code 6: a minute later it is.
    """
    store = store_of(home)
    folder = Folders(RunReader(store), store).gather(run_id, _refuse)
    hashes = {entry.name: entry.sha256 for entry in folder.entries}
    names = {key: name for name, key in folder.keys.items()}
    prover = Prover(store, newest=newest)
    directory = output or Path(f"{run_id}-proof")
    rows: list[dict[str, Any]] = []
    for index, key in prover.find(names):
        name = names.pop(key)
        proof = prover.prove(index, Stored(key, hashes[name]))
        file = directory / f"{name}{SUFFIX}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Sink(str(file), force=force, binary=True).take([proof.to_bytes()])
        rows.append({"file": str(file), "key": key, "index": index, "size": proof.checkpoint.size})
    print_rows(rows, as_json=as_json, title="proofs")
    for key in sorted(names):
        err.print(f"not sealed yet: {key}", markup=False, style="yellow")
    if names:
        raise NotSealed(
            f"{len(names)} of the run's records are in no seal yet; worker-audit seals each minute, and "
            "`rmos audit seal` does it now"
        )


def _refuse(error: CorruptArtifact) -> None:
    raise error
