"""The audit log as C2SP tlog-tiles serves it: static files, read as they lie in the store."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from rmos_runs.gateway.access import reads
from rmos_runs.gateway.answers import described
from rmos_runs.gateway.context import Given
from rmos_runs.gateway.keys import Role
from rmos_runs.operations.audit_log import served_checkpoint
from rmos_shared.auditlog import layout
from rmos_shared.errors import NotFound

router = APIRouter(tags=["audit"])

_TEXT = "text/plain; charset=utf-8"
_TILE = "application/octet-stream"
#: The newest changes within a minute; the others never, and not for everyone.
_FRESH = {"Cache-Control": "private, max-age=2"}
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}

#: A tile's level, or its entries; and its index, as tlog-tiles writes it.
_LEVEL = r"^(entries|0|[1-9]|[1-5][0-9]|6[0-3])$"
_INDEX = r"^(x[0-9]{3}/){0,2}[0-9]{3}(\.p/([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?$"
LevelPath = Annotated[
    str,
    Path(pattern=_LEVEL, description="The tile's level, 0 to 63, or `entries`.", examples=["0", "entries"]),
]
IndexPath = Annotated[
    str,
    Path(
        pattern=_INDEX,
        description="The tile's index in groups of three digits, all but the last with an `x`; of a tile "
        "that is not full, `.p/` and its width.",
        examples=["000", "x001/x234/067", "005.p/112"],
    ),
]


class NoSuchFile(NotFound):
    """The log has no such file, or nothing is sealed yet."""

    code = "LOG_FILE_NOT_FOUND"


def _answer(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string"} if media_type == _TEXT else {"type": "string", "format": "binary"}
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}


@router.get(
    "/checkpoint",
    dependencies=[reads(Role.READ)],
    response_class=Response,
    responses=described(None, 404) | _answer(_TEXT, "A signed note."),
)
async def get_checkpoint(services: Given) -> Response:
    """Return the newest checkpoint, signed by the log, with the cosignatures of witnesses that it has."""
    note = await services.threads.run(served_checkpoint, services.store)
    if note is None:
        raise NoSuchFile("nothing is sealed yet: the log has no checkpoint")
    return Response(note, headers=_FRESH, media_type=_TEXT)


@router.get(
    "/tile/{level}/{index:path}",
    dependencies=[reads(Role.READ)],
    response_class=Response,
    responses=described(None, 404) | _answer(_TILE, "The tile, or the bundle of entries."),
)
async def get_tile(services: Given, level: LevelPath, index: IndexPath) -> Response:
    """Return a tile: hashes, or at `entries` the entries themselves; it never changes."""
    data = await services.threads.run(services.store.get, f"{layout.TILES}{level}/{index}")
    if data is None:
        raise NoSuchFile("the log has no such tile; the checkpoint's size says which there are")
    return Response(data, headers=_FOR_EVER, media_type=_TILE)
