"""What is told of runs beside themselves: history, comparison, diff, packs, trees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from rmos_runs.gateway.access import reads
from rmos_runs.gateway.answers import described, json_answer
from rmos_runs.gateway.context import Given, RunId
from rmos_runs.gateway.exchange import caller_of
from rmos_runs.gateway.keys import Role
from rmos_runs.gateway.models import FilterQuery, LimitQuery, chosen_filter
from rmos_runs.gateway.services import Services
from rmos_runs.gateway.stream import StreamedAnswer, pieces_of
from rmos_runs.operations.compare import Comparison, compare
from rmos_runs.operations.diff import RunDiff, unified_diff
from rmos_runs.operations.export import stream_export
from rmos_runs.operations.family import Relatives
from rmos_runs.operations.history import HistoryEntry, history
from rmos_runs.operations.on_record import GATEWAY, Doing, recorded
from rmos_runs.operations.pack import stream_pack
from rmos_runs.operations.selection import told_of
from rmos_runs.operations.tree import RunTree, tree
from rmos_shared.errors import CorruptArtifact
from rmos_shared.jobs.acts import ActKind
from rmos_shared.models.base import Frozen, SafeId, Utf8Text
from rmos_shared.runs.query import RunFilter
from rmos_shared.telemetry.events import ActUnrecorded
from rmos_shared.telemetry.log import emit

#: Paths that begin with no run's id.
fixed = APIRouter(tags=["records"])
router = APIRouter(tags=["records"])

_ZIP = "application/zip"
#: Lines of a diff's preview.
_MOST_LINES = 400
_ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The archive; the same records give the same bytes.",
        "content": {_ZIP: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class HistoryBody(Frozen):
    """What happened to a run, oldest first."""

    run_id: SafeId
    entries: list[HistoryEntry]


class TreeBody(Frozen):
    """Runs by session, batch and parent."""

    tree: RunTree
    #: Keys of files that cannot be read.
    corrupt: list[Utf8Text]
    #: There are more runs than these.
    more: bool


class TreeQuery(FilterQuery, LimitQuery):
    """Which runs are in the tree; `limit` bounds their number."""


LeftId = Annotated[SafeId, Query(description="The run that is compared.")]
RightId = Annotated[SafeId, Query(description="The run that it is compared with.")]


@fixed.get("/diff", dependencies=[reads(Role.READ)], responses=described(RunDiff, 404))
async def diff_runs(services: Given, left_id: LeftId, right_id: RightId) -> Response:
    """Return what differs between two artifacts, for people; G-code is never in it."""
    left = await services.threads.run(services.reader.get_artifact, left_id)
    right = await services.threads.run(services.reader.get_artifact, right_id)
    return json_answer(await services.long.run(unified_diff, left, right, most_lines=_MOST_LINES))


@fixed.get("/export", dependencies=[reads(Role.READ)], responses=described(None) | _ARCHIVE)
async def export_runs(request: Request, services: Given, query: Annotated[FilterQuery, Query()]) -> Response:
    """Return the records of all runs of a filter as one archive: one folder a run, one manifest, one tree."""
    services.many.check()
    pieces = await services.long.run(
        stream_export,
        services.catalog,
        chosen_filter(query),
        services.reader,
        services.store,
        services.jobs,
    )
    headers = {"Content-Disposition": 'attachment; filename="runs.zip"'}
    about = {"filter": told_of(chosen_filter(query)), "format": "zip"}
    return StreamedAnswer(_in_turn(services, _recorded(request, services, pieces, about)), _ZIP, headers)


@fixed.get("/batches", dependencies=[reads(Role.READ, Role.OPERATE)], responses=described(TreeBody))
async def list_batches(services: Given, query: Annotated[TreeQuery, Query()]) -> Response:
    """Return the runs of a filter by session, batch and parent, each level with its worst risk and status."""
    return json_answer(await services.long.run(_batches, services, chosen_filter(query), query.clamped))


@router.get("/{run_id}/tree", dependencies=[reads(Role.READ)], responses=described(TreeBody, 404))
async def get_family(services: Given, run_id: RunId, query: Annotated[LimitQuery, Query()]) -> Response:
    """Return a run, all that it came from, and all that came from it."""
    return json_answer(await services.long.run(_family, services, run_id, query.clamped))


@router.get("/{run_id}/history", dependencies=[reads(Role.READ)], responses=described(HistoryBody, 404))
async def get_history(services: Given, run_id: RunId) -> Response:
    """Return what happened to a run: jobs, failures, replays, advisories, reviews, in order of time."""
    entries = await services.threads.run(history, run_id, services.reader, services.jobs)
    return json_answer(HistoryBody(run_id=run_id, entries=entries))


@router.get("/{run_id}/compare", dependencies=[reads(Role.READ)], responses=described(Comparison, 404))
async def compare_runs(
    services: Given,
    run_id: RunId,
    other_id: Annotated[SafeId, Query(alias="with", description="The run that it is compared with.")],
) -> Response:
    """Return what differs between two runs, as values: risk, rules, parameters, hashes, outputs."""
    left = await services.threads.run(services.reader.get_artifact, run_id)
    right = await services.threads.run(services.reader.get_artifact, other_id)
    return json_answer(await services.long.run(compare, left, right))


@router.get("/{run_id}/pack.zip", dependencies=[reads(Role.READ)], responses=described(None, 404) | _ARCHIVE)
async def pack_run(request: Request, services: Given, run_id: RunId) -> Response:
    """Return all records of a run as one archive, with a manifest that `sha256sum -c` verifies."""
    services.many.check()
    pieces = await services.long.run(stream_pack, run_id, services.reader, services.store, services.jobs)
    headers = {"Content-Disposition": f'attachment; filename="{run_id}.zip"'}
    taken = _recorded(request, services, pieces, {"run_id": run_id})
    return StreamedAnswer(_in_turn(services, taken), _ZIP, headers)


def _recorded(
    request: Request, services: Services, pieces: Iterator[bytes], about: Mapping[str, Any]
) -> Iterator[bytes]:
    doing = Doing(ActKind.EXPORT, caller_of(request).name, about, caller=GATEWAY)
    return recorded(pieces, services.jobs, doing, lambda: emit(ActUnrecorded(kind=doing.kind.value)))


async def _in_turn(services: Services, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    with services.many.one():
        async for piece in pieces_of(pieces, services.long):
            yield piece


def _batches(services: Services, choice: RunFilter, most: int) -> TreeBody:
    damage: list[CorruptArtifact] = []
    relatives = Relatives(services.catalog, services.reader, damage.append)
    items, more = relatives.chosen(choice, most_runs=most)
    return TreeBody(tree=tree(items), corrupt=[error.key for error in damage], more=more)


def _family(services: Services, run_id: str, most: int) -> TreeBody:
    damage: list[CorruptArtifact] = []
    relatives = Relatives(services.catalog, services.reader, damage.append)
    items, more = relatives.family(run_id, most_runs=most)
    return TreeBody(tree=tree(items), corrupt=[error.key for error in damage], more=more)
