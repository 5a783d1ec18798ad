"""Where a witness reads a log: a store's directory, or a gateway. Every read ends in time."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from rmos_runs.operations.audit_log import newest_note
from rmos_shared.auditlog import layout
from rmos_shared.errors import CorruptArtifact, StoreUnavailable
from rmos_shared.store.local import LocalStore

#: A full bundle of the longest entries is the largest file of a log that is ever read here.
_MOST_BYTES = 32 << 20
_Read = TypeVar("_Read")


class LogSource(Protocol):
    """A log as static files."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    def newest(self) -> bytes | None:
        """Return the newest checkpoint, a note; None while there is none.

        Raises:
            StoreUnavailable: it cannot be read now.
            CorruptArtifact: what is there cannot be read as a log.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """Return a tile by its key in a store (``_log/tile/...``), or None; raises as ``newest``."""
        ...


class DirectorySource:
    """The log of a store, or of a copy of one, in a directory."""

    def __init__(self, root: Path) -> None:
        """Read ``root``; nothing is opened yet."""
        self.name = str(root)
        self._store = LocalStore(root)

    @property
    def store(self) -> LocalStore:
        """The store itself."""
        return self._store

    def newest(self) -> bytes | None:
        """Return the newest checkpoint."""
        return newest_note(self._store)

    def get(self, key: str) -> bytes | None:
        """Return a file."""
        return self._store.get(key)


class UrlSource:
    """The log that a gateway serves: ``{url}/checkpoint`` and ``{url}/tile/...``.

    Redirects are not followed, for the key goes to whom it is for.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout_seconds: float) -> None:
        """Prepare, without connecting."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("not an http or https address")
        self.name = url.rstrip("/")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "rmos-runs"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_seconds = timeout_seconds
        self._opener = urllib.request.build_opener(_NoRedirects())

    def newest(self) -> bytes | None:
        """Return the newest checkpoint."""
        return self._fetch("checkpoint")

    def get(self, key: str) -> bytes | None:
        """Return a file."""
        return self._fetch(key.removeprefix(layout.LOG))

    def _fetch(self, path: str) -> bytes | None:
        request = urllib.request.Request(f"{self.name}/{path}", headers=self._headers)  # noqa: S310 - checked above
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                return _bounded(answer, path)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.client.NOT_FOUND:
                    return None
                what = "give --api-key-file" if error.code in {401, 403} else "repeat it later"
                raise StoreUnavailable(f"{self.name} answered with status {error.code}; {what}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StoreUnavailable(f"{self.name} gave no answer ({type(error).__name__})") from error


class TimedSource:
    """Another source, each read of which ends after so many seconds, whatever holds it up.

    A read of a file system that hangs cannot be called off: it is left to itself, and until it ends no
    other is begun.
    """

    def __init__(self, inner: LogSource, seconds: float) -> None:
        """Read ``inner``."""
        self.name = inner.name
        self._inner = inner
        self._seconds = seconds
        self._hanging: threading.Thread | None = None

    def newest(self) -> bytes | None:
        """Return the newest checkpoint."""
        return self._within(self._inner.newest)

    def get(self, key: str) -> bytes | None:
        """Return a file."""
        return self._within(lambda: self._inner.get(key))

    def _within(self, read: Callable[[], _Read]) -> _Read:
        if self._hanging is not None and self._hanging.is_alive():
            raise StoreUnavailable(f"{self.name} still gives no answer to a read that began before")
        answers: SimpleQueue[tuple[_Read | None, BaseException | None]] = SimpleQueue()

        def run() -> None:
            try:
                answers.put((read(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised by the thread that waits
                answers.put((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            value, error = answers.get(timeout=self._seconds)
        except Empty:
            self._hanging = thread
            raise StoreUnavailable(f"{self.name} gave no answer within {self._seconds:g} s") from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where the read may return it


def source_of(place: str, *, api_key: str | None, timeout_seconds: float) -> LogSource:
    """Return the source that ``place`` names: an address, or a directory.

    Raises:
        ValueError: it is an address of no kind that is known.
    """
    if "://" in place:
        return UrlSource(place, api_key=api_key, timeout_seconds=timeout_seconds)
    return DirectorySource(Path(place))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _bounded(answer: IO[bytes], path: str) -> bytes:
    data = answer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise CorruptArtifact(path, "it is larger than any file of a log")
    return data
