"""The whole words of an advisory, asked of the advisory store and proven by the link, for who judges them."""

from __future__ import annotations

import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from rmos_runs.local.home import Home
from rmos_shared.advisories.answers import ASSETS_PATH, mistake_behind
from rmos_shared.advisories.model import AdvisoryAsset, AdvisoryLink, Explanation
from rmos_shared.canonical import canonical_sha256
from rmos_shared.errors import AdvisoryNotFound, AdvisoryUnavailable, CorruptArtifact, InvalidRequest
from rmos_shared.models.base import JsonObject
from rmos_shared.settings.worker import WorkerSettings

_SECONDS = 5.0
_MOST_BYTES = 4_194_304
_PIECE_BYTES = 65_536


class _NoRedirects(HTTPRedirectHandler):
    """Follows none, as the workers do: the token goes to the configured address only."""

    def redirect_request(self, *_: object) -> None:
        """Return nothing to go on with."""


class AdvisoryWords:
    """Fetches what an advisory says. One call takes about 5 seconds and 4 MiB at most."""

    def __init__(self, url: str, token: str | None) -> None:
        """Ask the store at ``url``; nothing connects before the first call."""
        self._base = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._opener = build_opener(ProxyHandler({}), _NoRedirects)

    @classmethod
    def of(cls, home: Home) -> AdvisoryWords:
        """Ask the store of what runs on ``home``, else that of the environment.

        Raises:
            SettingsInvalid: naming the variable that is wrong.
        """
        running = home.addresses()
        if running is not None:
            return cls(running.advisory_url, running.advisory_token)
        settings = WorkerSettings.load()
        secret = settings.advisory_token
        return cls(settings.advisory_url, None if secret is None else secret.get_secret_value())

    def fetch(self, link: AdvisoryLink) -> JsonObject:
        """Return the content of the advisory that ``link`` ties to its run, as its hash proves it.

        Raises:
            AdvisoryNotFound: the store has no such advisory.
            AdvisoryUnavailable: it did not answer in time.
            CorruptArtifact: what it answered is not what was linked.
        """
        body = self._asked(f"{ASSETS_PATH}/{link.advisory_id}")
        try:
            asset = AdvisoryAsset.read_json(body)
        except InvalidRequest as error:
            raise CorruptArtifact(f"advisory {link.advisory_id}", str(error)) from None
        if canonical_sha256(asset.suggestion_data) != link.advisory_sha256:
            reason = "the advisory store holds other words than those that were linked to the run"
            raise CorruptArtifact(f"advisory {link.advisory_id}", reason)
        return asset.suggestion_data

    def _asked(self, path: str) -> bytes:
        until = time.monotonic() + _SECONDS
        try:
            address = self._base + path
            request = Request(address, headers=self._headers)  # noqa: S310 - the operator's own setting
            with self._opener.open(request, timeout=_SECONDS) as answer:
                return _body(answer, until)
        except HTTPError as error:
            with error:
                mistake = mistake_behind("GET", error.code)
            if error.code == HTTPStatus.NOT_FOUND:
                raise AdvisoryNotFound(path.rpartition("/")[2]) from None
            why = f": {mistake}" if mistake else ""
            raise AdvisoryUnavailable(f"the advisory store answers {error.code}{why}") from None
        except (OSError, ValueError, HTTPException) as error:
            reason = f"the advisory store does not answer ({type(error).__name__})"
            raise AdvisoryUnavailable(reason) from None


def _body(answer: HTTPResponse, until: float) -> bytes:
    body = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        body += piece
        if len(body) > _MOST_BYTES or time.monotonic() > until:
            raise AdvisoryUnavailable("the advisory store's answer is too long, or too slow")
    return bytes(body)


def as_explanation(words: JsonObject) -> Explanation | None:
    """Return the words as an explanation of ours; None if they are something else."""
    with suppress(InvalidRequest):
        return Explanation.read(words)
    return None
