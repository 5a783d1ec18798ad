"""The pack of a selection: one folder a run, one manifest, one tree (contract section 8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from rmos_runs.operations.folder import Folders
from rmos_runs.operations.manifest import MANIFEST
from rmos_runs.operations.pack import archived
from rmos_runs.operations.proofs import Proofs, Stored, proof_name
from rmos_runs.operations.selection import Selection, select
from rmos_runs.operations.tree import Growth, TreeItem
from rmos_runs.operations.zip_stream import Entry, joined
from rmos_shared.errors import CorruptArtifact, RunNotFound
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.runs.query import RunCatalog, RunFilter
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import ArtifactStore

#: Of one archive. Each costs memory for its place in the tree and for the names of its files, whose proofs
#: are found in one pass; all else is flat.
MOST_RUNS = 50_000
_RUNS = "runs/"

_README = f"""\
The records of the runs that a filter means, format 1.

runs/           one folder a run: its artifact, links, reviews, failed attempts, outputs, attachments,
                history, and in proof/ that they are in the audit log, unchanged
PROOFS.txt      which log that is, how to check a proof, and what is not in it yet
index.json      the filter, and the runs by session, batch and parent, with the worst of each
DAMAGED.txt     what the filter means and nobody can read; not there when all is well
{MANIFEST} the SHA-256 of every other file

Check it:  sha256sum -c {MANIFEST}
"""


class Export:
    """The archive of one selection; iterating makes it, once."""

    def __init__(
        self,
        catalog: RunCatalog,
        choice: RunFilter,
        reader: RunReader,
        store: ArtifactStore,
        *,
        most_runs: int = MOST_RUNS,
    ) -> None:
        """Take the runs that ``choice`` means; raises as ``select``."""
        self._choice = choice
        self._folders = Folders(reader, store)
        self._proofs = Proofs(store)
        self.selection: Selection = select(catalog, choice, most_runs=most_runs)
        #: Runs that are in the archive, or among the damaged, by now.
        self.done = 0
        #: What is damaged and why, by key: complete once the archive is through.
        self.damaged = {key: self._folders.damage_of(key) for key in self.selection.corrupt}

    def __iter__(self) -> Iterator[bytes]:
        """Yield the archive.

        Raises:
            StoreUnavailable: the store went away; what was yielded is cut short.
            CorruptArtifact: an attachment changed while it was read; the same.
        """
        return joined(archived(self._entries()))

    def _entries(self) -> Iterator[Entry]:
        yield Entry.of("README.txt", _README.encode())
        items: list[TreeItem] = []
        for run_id in self.selection.run_ids:
            try:
                folder = self._folders.gather(run_id, self._tell)
            except CorruptArtifact as error:
                self._tell(error)
            except RunNotFound:
                # An index can know of a file that is gone; only an operator can say where it is.
                self._tell(CorruptArtifact(run_id, "it was listed and is gone"))
            else:
                items.append(TreeItem.of(folder.artifact))
                for entry in folder.entries:
                    name = f"{_RUNS}{run_id}/{entry.name}"
                    if entry.name in folder.keys:
                        self._proofs.want(name, Stored(folder.keys[entry.name], entry.sha256))
                    yield replace(entry, name=name)
            self.done += 1
        yield from self._proven()
        growth = Growth(items)
        yield Entry.measured("index.json", lambda: self._index(growth))
        if self.damaged:
            lines = (f"{key}: {reason}\n" for key, reason in sorted(self.damaged.items()))
            yield Entry.of("DAMAGED.txt", "".join(lines).encode())

    def _proven(self) -> Iterator[Entry]:
        """Yield the proofs of all files, each beside its file's folder, and what to do with them."""
        example = ("", "")
        try:
            for name, data in self._proofs.made(self._tell):
                run_id, _, file = name.removeprefix(_RUNS).partition("/")
                proof = f"{_RUNS}{run_id}/{proof_name(file)}"
                example = example if example[0] else (name, proof)
                yield Entry.of(proof, data)
        except CorruptArtifact as error:
            # The log is damaged, not the records.
            self._tell(error)
        text = self._proofs.summary.text(*example)
        if self._proofs.unsealed:
            text += "\nNot in the audit log yet, so not proven:\n"
        lines = [f"  {name}\n" for name in self._proofs.unsealed]
        yield Entry.measured("PROOFS.txt", lambda: map(str.encode, [text, *lines]))

    def _tell(self, error: CorruptArtifact) -> None:
        self.damaged[error.key] = error.reason

    def _index(self, growth: Growth) -> Iterator[bytes]:
        chosen = {name: value for name, value in self._choice.dump().items() if value is not None}
        head = json.dumps(chosen, sort_keys=True, ensure_ascii=False)
        yield f'{{"filter":{head},"tree":{{"total":{growth.total.model_dump_json()},"sessions":['.encode()
        for number, session in enumerate(growth.sessions()):
            yield ("," * bool(number) + session.model_dump_json()).encode()
        rest = {"cycles": growth.cycles, "absent_parents": growth.absent_parents}
        yield f"],{json.dumps(rest, ensure_ascii=False)[1:]}}}\n".encode()


def stream_export(
    catalog: RunCatalog,
    choice: RunFilter,
    reader: RunReader,
    store: ArtifactStore,
    ledger: JobLedger | None,  # noqa: ARG001 - as in ``stream_pack``
) -> Iterator[bytes]:
    """Return the archive of the runs that ``choice`` means, a piece at a time; see ``Export``.

    Which runs they are is settled in the call. What is damaged is named in ``DAMAGED.txt`` inside, and the
    rest is there all the same.

    Raises:
        InvalidRequest: they are more than ``MOST_RUNS``.
        StoreUnavailable: the store, or the index, is away.
    """
    return iter(Export(catalog, choice, reader, store))
