"""RFC 3161 time stamps of checkpoints: what is asked of an authority, and the proof of what it answered.

A token says that an authority, which knows nothing of us, saw a checkpoint's text at its own time. The
library is imported when it is needed: who asks for no time stamps need not install it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING

from rmos_shared.auditlog.der import with_sorted_certificates
from rmos_shared.errors import SettingsInvalid, TimestampRefused, TimestampUnavailable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

#: As ``application/timestamp-query`` is answered (RFC 3161, section 3.4).
QUERY_TYPE = "application/timestamp-query"
REPLY_TYPE = "application/timestamp-reply"

_SHA256_OID = "2.16.840.1.101.3.4.2.1"
#: Granted, and granted with a modification that the imprint and the nonce must survive all the same.
_GRANTED = (0, 1)


@dataclass(frozen=True, slots=True)
class StampQuery:
    """What is sent to an authority, and the number that its answer must repeat."""

    der: bytes
    nonce: int
    sha256: bytes


def stamp_query(text: bytes) -> StampQuery:
    """Return a new query for the SHA-256 of a checkpoint's text, with a random nonce.

    Raises:
        SettingsInvalid: the extra ``timestamps`` is not installed.
    """
    client = _client()
    request = (
        client.TimestampRequestBuilder()
        .data(text)
        .hash_algorithm(client.HashAlgorithm.SHA256)
        .nonce(nonce=True)
        .cert_request(cert_request=True)
        .build()
    )
    nonce = request.nonce
    if nonce is None:  # pragma: no cover - it was asked for
        raise TimestampRefused("the query for a time stamp has no nonce")
    return StampQuery(request.as_bytes(), nonce, hashlib.sha256(text).digest())


def proven_answer(query: StampQuery, answer: bytes, roots: Sequence[Certificate] = ()) -> datetime:
    """Return the time of a token that answers ``query``; with ``roots`` its signature is proven too.

    Raises:
        TimestampUnavailable: these bytes are no answer of an authority.
        TimestampRefused: it refused, answers another query, or is not signed by one that ``roots`` trust.
    """
    try:
        response = _client().decode_timestamp_response(with_sorted_certificates(answer))
    except ValueError as error:
        raise TimestampUnavailable(
            "the answer is no RFC 3161 time stamp; check what answers at RMOS_TSA_URL"
        ) from error
    _check_granted(response)
    if _nonce(response) != query.nonce:
        raise TimestampRefused("the time stamp does not repeat the query's nonce: it answers another query")
    return _proven(response, query.sha256, roots)


def proven_token(token: bytes, text: bytes, roots: Sequence[Certificate]) -> datetime:
    """Return when an authority that ``roots`` trust saw ``text``, a checkpoint's note text.

    Raises:
        TimestampRefused: the token is none, is of another text, or is not signed by one of them.
    """
    try:
        response = _client().decode_timestamp_response(with_sorted_certificates(token))
    except ValueError as error:
        raise TimestampRefused("the file is no RFC 3161 time stamp") from error
    _check_granted(response)
    return _proven(response, hashlib.sha256(text).digest(), roots)


def certificates(pem: bytes, *, name: str) -> list[Certificate]:
    """Return the certificates of a PEM file.

    Raises:
        SettingsInvalid: it holds none; ``name`` says which file, or which setting names it.
    """
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - see above

    try:
        return load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SettingsInvalid(f"{name} holds no PEM certificate") from error


def _check_granted(response: TimeStampResponse) -> None:
    if response.status not in _GRANTED:
        # Their words are theirs: a status is a number, and enough to look up.
        raise TimestampRefused(f"the time-stamp authority refused, with status {response.status}")


def _nonce(response: TimeStampResponse) -> int | None:
    try:
        return response.tst_info.nonce
    except ValueError as error:
        raise TimestampRefused("the time stamp cannot be read: a part of it is damaged") from error


def _proven(response: TimeStampResponse, sha256: bytes, roots: Sequence[Certificate]) -> datetime:
    from rfc3161_client import VerificationError, VerifierBuilder  # noqa: PLC0415 - see above

    try:
        imprint, at = response.tst_info.message_imprint, response.tst_info.gen_time
        if imprint.hash_algorithm.dotted_string != _SHA256_OID or imprint.message != sha256:
            raise TimestampRefused("the time stamp is not of this checkpoint: its imprint is another hash")
        if roots:
            VerifierBuilder(roots=[*roots]).build().verify(response, sha256)
    except VerificationError as error:
        raise TimestampRefused(
            f"the time stamp is not signed by an authority of these certificates ({error})"
        ) from error
    except (ValueError, TypeError) as error:
        # The parts of a token are read when they are asked for.
        raise TimestampRefused("the time stamp cannot be read: a part of it is damaged") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _client() -> ModuleType:
    try:
        import rfc3161_client  # noqa: PLC0415 - see above
    except ImportError as error:
        raise SettingsInvalid(
            "time stamps need the extra 'timestamps': pip install 'rmos-runs[timestamps]'"
        ) from error
    return rfc3161_client
