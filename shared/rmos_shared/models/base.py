"""The base of every model and the field types that several models share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rmos_shared.canonical import check_json, encoder
from rmos_shared.errors import InvalidRequest
from rmos_shared.ids import JOB_ID, SAFE_ID, is_safe_id


class Frozen(BaseModel):
    """A value: never changed, unknown fields refused (a dropped field is a lost answer)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        ser_json_inf_nan="constants",
    )

    @classmethod
    def read(cls, obj: object, *, what: str | None = None) -> Self:
        """Build the model from decoded JSON.

        Raises:
            InvalidRequest: naming each wrong field, without its value.
        """
        try:
            return cls.model_validate(obj)
        except ValidationError as error:
            raise InvalidRequest.of(error, what=what or cls.__name__) from None

    @classmethod
    def read_json(cls, data: bytes | str, *, what: str | None = None) -> Self:
        """Build the model from JSON text; raises as ``read``, also if it is no JSON."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidRequest.of(error, what=what or cls.__name__) from None

    def dump(self) -> dict[str, Any]:
        """Return the model as JSON-ready types."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the model as compact JSON in no fixed order of keys, to be read back by ``read_json``.

        Fields that were never set are left out, for reading gives them the same default again. Several times
        as fast as the canonical form, which is needed only for what is stored or hashed for ever.
        """
        return self.model_dump_json(exclude_unset=True)

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the model: the bytes that are stored, those of ``dump``."""
        return _encode(self)


def joined(errors: Iterable[ValidationError]) -> ValidationError:
    """Return one error that names every field that ``errors`` do, without the values."""
    details = (
        InitErrorDetails(
            # The message is a text by now, not a template: without a context its braces stay.
            type=PydanticCustomError("refused", item["msg"].removeprefix("Value error, ")),
            loc=item["loc"],
            input=None,
        )
        for error in errors
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return ValidationError.from_exception_data("request", list(details), hide_input=True)


#: RFC 3339, save that the zone may be missing: that is told apart, as a time without one.
_RFC3339 = re.compile(r"\d{4}(-\d\d){2}[Tt ]\d\d(:\d\d){2}(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


def _parse_utc(value: object) -> datetime:
    if isinstance(value, str):
        # fromisoformat takes more than RFC 3339 does (week dates, missing separators).
        if not _RFC3339.fullmatch(value):
            raise ValueError("not an RFC 3339 time")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError:
            raise ValueError("not an RFC 3339 time") from None
    if not isinstance(value, datetime):
        raise ValueError("not a time")  # noqa: TRY004 - pydantic collects ValueError only
    if value.utcoffset() is None:
        raise ValueError("the time has no zone; give UTC, ending in Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is outside the years 1 to 9999") from None


def format_utc(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC, ending in ``Z``."""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def _plain(value: Frozen | datetime) -> object:
    # All that a model holds beside JSON's own types. The encoder asks here, so no copy is made for it first.
    return format_utc(value) if isinstance(value, datetime) else vars(value)


_encode = encoder(_plain)


def _check_object(value: dict[str, Any]) -> dict[str, Any]:
    try:
        check_json(value)
    except InvalidRequest as error:
        raise ValueError("; ".join(map(str, error.problems))) from None
    return value


def _check_text(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("lone surrogate is not Unicode text") from None
    return value


def _check_line(value: str) -> str:
    # Blanks first: other spaces than the plain one are not printable either. Nor are lone surrogates.
    if not value or value.isspace():
        raise ValueError("must not be blank")
    if not value.isprintable():
        raise ValueError("must hold printable characters only")
    return value


def _check_id(value: str) -> str:
    if not is_safe_id(value):
        raise ValueError(
            "must be 1 to 128 letters, digits, '_' or '-', begin with a letter or digit, "
            "and not hold '_advisory_'"
        )
    return value


def _check_job_id(value: str) -> str:
    if JOB_ID.fullmatch(value) is None:
        raise ValueError("must be a UUIDv7 of 32 lower-case hex digits")
    return value


def _check_day(value: str) -> str:
    try:
        parsed = date.fromisoformat(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.isoformat() != value:
        raise ValueError("must be a date, YYYY-MM-DD")
    return value


#: What a JSON Schema can say of these: of printable characters those of Latin-1.
_LINE_SCHEMA = {
    "type": "string",
    "maxLength": 256,
    "pattern": r"^ *[^\x00-\x20\x7f-\xa0\xad][^\x00-\x1f\x7f-\xa0\xad]*$",
}
_ID_SCHEMA = {
    "type": "string",
    "pattern": f"^{SAFE_ID.pattern}$",
    "examples": ["01a20d3c3a8b73898836cc2b6ecc4ed6"],
}
_JOB_ID_SCHEMA = {"type": "string", "pattern": f"^{JOB_ID.pattern}$"}

#: RFC 3339 in UTC, ending in Z. Naive times are refused, other offsets converted (contract section 2).
#: pydantic writes it as ``format_utc`` does.
UtcTime = Annotated[datetime, BeforeValidator(_parse_utc)]
#: A JSON object kept verbatim; anything JSON cannot carry exactly is refused with its path.
JsonObject = Annotated[dict[str, Any], AfterValidator(_check_object)]
#: Any Unicode text.
Utf8Text = Annotated[str, AfterValidator(_check_text)]
#: A short, printable, non-blank line: a mode, a tool, a request id.
SingleLine = Annotated[
    str, StringConstraints(max_length=256), AfterValidator(_check_line), WithJsonSchema(_LINE_SCHEMA)
]
#: What a person calls themselves; short, for it becomes a part of a line.
Nickname = Annotated[
    str,
    StringConstraints(max_length=128),
    AfterValidator(_check_line),
    WithJsonSchema({**_LINE_SCHEMA, "maxLength": 128}),
]
#: A name or reference of contract section 7: longer than a line elsewhere, and printable as well.
Word = Annotated[
    str,
    StringConstraints(max_length=512),
    AfterValidator(_check_line),
    WithJsonSchema({**_LINE_SCHEMA, "maxLength": 512}),
]
#: Prose of contract section 7.
WordText = Annotated[str, StringConstraints(max_length=512), AfterValidator(_check_text)]
#: A run or advisory id that may become part of a path.
SafeId = Annotated[str, AfterValidator(_check_id), WithJsonSchema(_ID_SCHEMA)]
#: A UTC date, ``YYYY-MM-DD``.
IsoDate = Annotated[str, AfterValidator(_check_day), WithJsonSchema({"type": "string", "format": "date"})]
#: An id of a job in the ledger.
JobId = Annotated[str, AfterValidator(_check_job_id), WithJsonSchema(_JOB_ID_SCHEMA)]
#: SHA-256 as 64 lower-case hex digits.
Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"\A[0-9a-f]{64}\z"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
]
