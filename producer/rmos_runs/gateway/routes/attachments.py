"""Attachments over HTTP: uploaded with the sender's hash, and served only to runs that name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.params import Depends
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from rmos_runs.operations.attachments import UploadLimits, claimed_sha256, content_digest, find, receive
from rmos_shared.runs.attachment_key import attachment_sha256
from rmos_shared.runs.attachments import Attachments
from rmos_shared.runs.reader import RunReader

_CONTENT = "application/octet-stream"
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


class AttachmentReceipt(BaseModel):
    """An attachment that is stored."""

    #: What a run names it by, in ``outputs.gcode_path``, ``opplan_path`` or ``preview_svg_path``.
    key: str
    sha256: str


def attachment_routes(
    attachments: Attachments,
    reader: RunReader,
    *,
    may_upload: Sequence[Depends] = (),
    may_read: Sequence[Depends] = (),
    limits: UploadLimits | None = None,
) -> APIRouter:
    """Return the routes, to be mounted under ``/api/rmos/runs`` before ``/{run_id}``.

    They raise errors of ours, which the application turns into answers; who may call is the caller's to say.
    """
    router = APIRouter()
    slowest = limits or UploadLimits()

    @router.post(
        "/attachments",
        status_code=201,
        dependencies=list(may_upload),
        openapi_extra={"requestBody": {"required": True, "content": {_CONTENT: _BYTES}}},
    )
    async def upload(
        request: Request,
        digest: Annotated[
            str | None,
            Header(alias="Content-Digest", description="`sha-256=:<base64>:` (RFC 9530); required."),
        ] = None,
        suffix: Annotated[str, Query(description="Up to two extensions, such as `.nc`.")] = "",
    ) -> AttachmentReceipt:
        """Store an attachment, before the run that names it is posted; the same content again is the same."""
        length = request.headers.get("Content-Length", "")
        if length.isdecimal():
            attachments.check_size(int(length))
        key = await receive(
            attachments,
            aiter(request.stream()),
            suffix=suffix,
            claimed_sha256=claimed_sha256(digest),
            limits=slowest,
        )
        return AttachmentReceipt(key=key, sha256=attachment_sha256(key) or "")

    @router.get(
        "/{run_id}/attachments/{name}",
        dependencies=list(may_read),
        response_class=StreamingResponse,
        responses={200: {"content": {_CONTENT: _BYTES}, "description": "The attachment."}},
    )
    async def download(run_id: str, name: str) -> StreamingResponse:
        """Return an attachment that the run names. One that is damaged breaks off before its last byte."""
        head = await run_in_threadpool(find, reader, attachments, run_id, name)
        headers = {
            "Content-Length": str(head.size_bytes),
            "Content-Digest": content_digest(head.key),
            "Content-Disposition": f'attachment; filename="{name}"',
            "ETag": f'"{attachment_sha256(head.key)}"',
            "X-Content-Type-Options": "nosniff",
        }
        return StreamingResponse(attachments.read(head.key), headers=headers, media_type=_CONTENT)

    return router
