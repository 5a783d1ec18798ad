"""The pack of a run: a ZIP that is the same, byte for byte, for the same records (contract section 8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rmos_runs.operations.folder import Folders
from rmos_runs.operations.manifest import MANIFEST, Manifest
from rmos_runs.operations.proofs import Proofs, Stored, proof_name
from rmos_runs.operations.zip_stream import Entry, ZipStream, joined
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import ArtifactStore

_README = f"""\
The record of one run, format 1.

artifact.json   the run as it was stored, byte for byte; it never changed
links/          explanations and other advisories that were attached to it
reviews/        what persons decided on these
attempts/       explanations that failed for good
outputs/        its G-code, plan and preview, as far as the record holds them
attachments/    large outputs, each named by the SHA-256 of its content
history.json    what happened, in order of time, as the files above tell it
proof/          for each of these files that the store holds: that it is in the audit log, and unchanged
{MANIFEST} the SHA-256 of every other file

Check it:  sha256sum -c {MANIFEST}

The SHA-256 of outputs/gcode* is hashes.gcode_sha256 of artifact.json, that of outputs/opplan* is
hashes.opplan_sha256. An output that lies under outputs/ and attachments/ is the same file twice.
Jobs are not in history.json: the ledger forgets them, and the pack of the same records is always the
same bytes.

The proofs
----------
"""


def stream_pack(
    run_id: str,
    reader: RunReader,
    store: ArtifactStore,
    ledger: JobLedger | None,  # noqa: ARG001 - callers have one; see below
) -> Iterator[bytes]:
    """Return the pack of a run, a piece at a time; memory holds its small records and one such piece.

    Everything is proven in the call, before there is a first piece. The ledger is not asked: what it knows of
    jobs changes and expires, and the pack of the same records must not. Proofs are made against the first
    checkpoint that holds each record, so they do not change either, once it is sealed.

    Raises:
        RunNotFound: there is no such run.
        CorruptArtifact: a record or attachment of it is damaged; ``export`` takes what is left.
        StoreUnavailable: the store is away.
    """
    folder = Folders(reader, store).gather(run_id, _refuse)
    proofs = Proofs(store)
    for entry in folder.entries:
        if entry.name in folder.keys:
            proofs.want(entry.name, Stored(folder.keys[entry.name], entry.sha256))
    entries = [
        *folder.entries,
        *(Entry.of(proof_name(name), data) for name, data in proofs.made(_refuse)),
    ]
    readme = _README + proofs.summary.text("artifact.json", proof_name("artifact.json"))
    if proofs.unsealed:
        readme += "\nNot in the audit log yet, so not proven:\n" + "".join(
            f"  {name}\n" for name in proofs.unsealed
        )
    entries.append(Entry.of("README.txt", readme.encode()))
    return joined(archived(sorted(entries, key=lambda entry: entry.name)))


def archived(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield an archive of ``entries`` in the order given, and of their manifest."""
    with ZipStream() as archive, Manifest() as manifest:
        for entry in entries:
            manifest.add(entry)
            yield from archive.add(entry)
        yield from archive.add(manifest.entry())
        yield from archive.end()


def _refuse(error: CorruptArtifact) -> None:
    raise error
