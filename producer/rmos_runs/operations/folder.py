"""All that the store holds of one run, as files to hand over, each proven (contract section 8)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from rmos_runs.operations.history import stored_history
from rmos_runs.operations.zip_stream import Entry
from rmos_shared.advisories.model import AdvisoryLink, Attempt, Review
from rmos_shared.canonical import encode
from rmos_shared.errors import AttachmentNotFound, CorruptArtifact
from rmos_shared.models.base import Frozen
from rmos_shared.runs import layout as keys
from rmos_shared.runs.attachments import Attachments, named_by
from rmos_shared.runs.files import RunFiles, parse_attempt, parse_link, parse_review, parse_run
from rmos_shared.runs.lookup import not_found
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.reader import RunReader
from rmos_shared.store.base import ArtifactStore

Record = TypeVar("Record", bound=Frozen)
#: Called with each damage that is met; it may raise it.
OnDamage = Callable[[CorruptArtifact], None]

_INLINE_SUFFIX = {"gcode": ".nc", "opplan": ".json"}
_DIGEST_CHARACTERS = 64
#: In a folder without the underscore of the store.
_ATTACHMENTS = "attachments/"


@dataclass(frozen=True, slots=True)
class Folder:
    """One run and its files, by name; what is small is held in memory, an attachment is read when written."""

    artifact: RunArtifact
    entries: list[Entry]
    #: The store's keys of those entries that are files of it, by their names.
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Stored(Generic[Record]):
    """A record and the bytes that it was read from."""

    key: str
    data: bytes
    record: Record


class Folders:
    """Gathers folders. Every method raises ``StoreUnavailable`` when the store is away."""

    def __init__(self, reader: RunReader, store: ArtifactStore) -> None:
        """Read ``store``, which is that of ``reader``."""
        self._reader = reader
        self._files = RunFiles(store)
        self._attachments = Attachments(store)

    def gather(self, run_id: str, on_damage: OnDamage) -> Folder:
        """Return the folder of a run; a record or attachment that is damaged is reported, and left out.

        Every attachment is read to its end here, and proven.

        Raises:
            RunNotFound: there is no such run.
            CorruptArtifact: the artifact itself is damaged; there is no folder then.
        """
        key = self._reader.artifact_key(run_id)
        data = None if key is None else self._files.get(key)
        if key is None or data is None:
            raise not_found(run_id)
        artifact = parse_run(key, data)
        day = keys.partition_of(key)
        links = self._records(keys.link_prefix(day, run_id), parse_link, on_damage)
        reviews = self._records(keys.review_prefix(day, run_id), parse_review, on_damage)
        attempts = self._records(keys.attempt_prefix(day, run_id), parse_attempt, on_damage)
        # Links of another run may begin with this one's name.
        links = [link for link in links if link.record.run_id == run_id]
        stored = [
            ("artifact.json", key, data),
            *((f"links/{link.record.advisory_id}.json", link.key, link.data) for link in links),
            *((f"reviews/{_name(review.key)}", review.key, review.data) for review in reviews),
            *((f"attempts/{_name(attempt.key)}", attempt.key, attempt.data) for attempt in attempts),
        ]
        outputs = list(self._outputs(key, artifact, on_damage))
        entries = [
            *(Entry.of(name, data) for name, _, data in stored),
            Entry.of("history.json", _history(artifact, data, links, reviews, attempts)),
            *outputs,
        ]
        keys_of = {name: key for name, key, _ in stored}
        keys_of |= {entry.name: f"_{entry.name}" for entry in outputs if entry.name.startswith(_ATTACHMENTS)}
        return Folder(artifact, sorted(entries, key=lambda entry: entry.name), keys_of)

    def damage_of(self, key: str) -> str:
        """Return why an artifact cannot be read, that a list found to be damaged."""
        try:
            self._files.run(key)
        except CorruptArtifact as error:
            return error.reason
        return "it was listed as damaged, and can be read now; make the list anew"

    def _records(
        self, prefix: str, read: Callable[[str, bytes], Record], on_damage: OnDamage
    ) -> list[_Stored[Record]]:
        records = []
        try:
            listed = self._files.json_keys(prefix)
        except CorruptArtifact as error:
            on_damage(error)
            return []
        for key in listed:
            try:
                data = self._files.bytes(key)
                records.append(_Stored(key, data, read(key, data)))
            except CorruptArtifact as error:
                on_damage(error)
        return records

    def _outputs(self, key: str, artifact: RunArtifact, on_damage: OnDamage) -> Iterator[Entry]:
        """Yield the attachments, and under ``outputs/`` G-code, plan and preview, wherever they lie."""
        outputs, hashes = artifact.outputs, artifact.hashes
        attached = dict(self._attached(artifact, on_damage))
        yield from attached.values()
        inline = {
            "gcode": None if outputs.gcode_text is None else outputs.gcode_text.encode(),
            # As it was hashed.
            "opplan": None if outputs.opplan_json is None else encode(outputs.opplan_json),
        }
        for name, path, digest in (
            ("gcode", outputs.gcode_path, hashes.gcode_sha256),
            ("opplan", outputs.opplan_path, hashes.opplan_sha256),
            ("preview", outputs.preview_svg_path, None),
        ):
            data, entry = inline.get(name), attached.get(path or "")
            if data is not None:
                yield Entry.of(f"outputs/{name}{_INLINE_SUFFIX[name]}", data)
            elif entry is not None:
                yield replace(entry, name=f"outputs/{name}{_name(entry.name)[_DIGEST_CHARACTERS:]}")
                if digest not in {None, entry.sha256}:
                    on_damage(CorruptArtifact(key, f"{path}, which it names, has another hash than it says"))

    def _attached(self, artifact: RunArtifact, on_damage: OnDamage) -> Iterator[tuple[str, Entry]]:
        for path in sorted(named_by(artifact)):
            try:
                name = path.removeprefix("_")
                yield path, Entry.measured(name, partial(self._attachments.read, path))
            except AttachmentNotFound:
                on_damage(CorruptArtifact(path, "a run names it, and it is not stored"))
            except CorruptArtifact as error:
                on_damage(error)


def _history(
    artifact: RunArtifact,
    data: bytes,
    links: list[_Stored[AdvisoryLink]],
    reviews: list[_Stored[Review]],
    attempts: list[_Stored[Attempt]],
) -> bytes:
    entries = stored_history(
        artifact,
        data,
        [link.record for link in links],
        [review.record for review in reviews],
        [attempt.record for attempt in attempts],
    )
    history = {"run_id": artifact.run_id, "entries": [entry.dump() for entry in entries]}
    return json.dumps(history, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"


def _name(key: str) -> str:
    return key.rpartition("/")[2]
