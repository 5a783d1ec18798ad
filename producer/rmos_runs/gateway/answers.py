"""Answers that are models, and how a route describes them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from rmos_runs.gateway.models import ErrorBody
from rmos_runs.gateway.problems import PROBLEM_TYPE
from rmos_shared.models.base import Frozen

#: What any route may answer.
_ALWAYS = (400, 401, 403, 429, 500, 503, 504)


def json_answer(body: Frozen, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """Return a model as a JSON answer."""
    return Response(body.model_dump_json(), status, headers, "application/json")


def described(
    model: type[Frozen] | None, *statuses: int, status: int = HTTPStatus.OK, **others: type[Frozen]
) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route: its answer, and each error that it knows.

    Keywords name further answers: ``created=RunBody``.
    """
    told: dict[int | str, dict[str, Any]] = {
        number: {
            "model": ErrorBody,
            "description": HTTPStatus(number).phrase,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for number in sorted({*_ALWAYS, *statuses})
    }
    for number, answer in [
        (status, model),
        *((HTTPStatus[name.upper()], kind) for name, kind in others.items()),
    ]:
        if answer is not None:
            told[int(number)] = {"model": answer, "description": str(answer.__doc__).splitlines()[0]}
    return told


def body_of_type(name: str, *, required: bool = True, media_type: str = "application/json") -> dict[str, Any]:
    """Return the description of a request body that is a model of ``openapi.SCHEMAS``."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": required, "content": {media_type: {"schema": schema}}}}
