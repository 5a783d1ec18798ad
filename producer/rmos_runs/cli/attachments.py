"""``rmos attachments``: large outputs beside the artifacts, each named by the hash of its content."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from rmos_runs.cli.context import (
    DEFAULT_HOME,
    Damage,
    HomeOption,
    JsonOption,
    LimitOption,
    ledger_if_set,
    out,
    print_json,
    print_rows,
    store_of,
    told,
)
from rmos_runs.cli.table import Row
from rmos_runs.local.home import Home
from rmos_shared.errors import AttachmentNotFound
from rmos_shared.models.base import format_utc
from rmos_shared.runs.attachment_key import attachment_sha256
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.reader import RunEntry, RunReader
from rmos_shared.runs.references import AttachmentEntry, every_attachment, naming, unreferenced

app = typer.Typer(no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(help="The attachment: _attachments/ab/<sha256><suffix>.")]


@app.command()
def put(
    file: Annotated[Path, typer.Argument(help="What to store; - for standard input.")],
    *,
    suffix: Annotated[
        str | None, typer.Option(help="Up to two extensions, such as .nc; that of FILE if left out.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="The hash that the content must have, in hex; refused otherwise.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Store FILE as an attachment, and print its key. A run may name it by that key.

    The same content again is the same file. Store it before the run that names it is enqueued.
    """
    with _opened(file) as stream, ledger_if_set(home) as ledger:
        store = told(store_of(home), ledger)
        attachments = Attachments(store, most_bytes=Home(home).store_settings().max_attachment_bytes)
        key = attachments.put(stream, file.suffix.lower() if suffix is None else suffix, sha256)
    if as_json:
        print_json({"key": key, "sha256": attachment_sha256(key)})
    else:
        out.print(key, markup=False)


@app.command()
def get(
    key: KeyArgument,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The new file to write it to.")],
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write an attachment to a new file. The file is there only once its hash is proven."""
    attachments = _attachments_of(home)
    with _new_file(output) as file:
        for piece in attachments.read(key):
            file.write(piece)


@app.command("list")
def list_attachments(
    *,
    nobody: Annotated[
        bool,
        typer.Option("--unreferenced", help="Only those that no stored run names; reads every run."),
    ] = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List attachments with size and time. Damage is named, and makes the exit code 7.

    An unreferenced one may belong to a run that is still on its way. Nothing is ever deleted.
    """
    damage, store = Damage(), store_of(home)
    attachments = Attachments(store)
    found = (
        unreferenced(attachments, RunReader(store).list_runs()) if nobody else every_attachment(attachments)
    )
    print_rows(_rows(found, damage), as_json=as_json, title="attachments", limit=limit)
    damage.exit()


@app.command()
def runs(
    key: KeyArgument,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the runs that name an attachment, newest first. Every run is read."""
    damage, store = Damage(), store_of(home)
    if Attachments(store).head(key) is None:
        raise AttachmentNotFound(key)
    rows = _run_rows(naming(key, RunReader(store).list_runs()), damage)
    print_rows(rows, as_json=as_json, title="runs", limit=limit)
    damage.exit()


def _attachments_of(home: Path) -> Attachments:
    settings = Home(home).store_settings()
    return Attachments(store_of(home), most_bytes=settings.max_attachment_bytes)


def _rows(
    found: Iterator[AttachmentEntry | RunEntry] | Iterator[AttachmentEntry], damage: Damage
) -> Iterator[Row]:
    for entry in found:
        if entry.error is not None:
            damage.tell(entry.error)
        elif isinstance(entry, AttachmentEntry) and entry.head is not None:
            head = entry.head
            yield {"key": entry.key, "bytes": head.size_bytes, "at_utc": format_utc(head.modified_at)}


def _run_rows(entries: Iterator[RunEntry], damage: Damage) -> Iterator[Row]:
    for entry in entries:
        if entry.error is not None:
            damage.tell(entry.error)
        elif entry.artifact is not None:
            yield {"run_id": entry.artifact.run_id, "path": entry.key}


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None
    with stream:
        yield stream


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name once the block has ended well, and never takes another's."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            yield file
        os.link(draft, path)
    except FileExistsError:
        raise typer.BadParameter(f"{path} is there already; name a new file") from None
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            draft.unlink()
