"""The home of a local installation: where its processes keep their state and say how to reach them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.settings import ProducerSettings, StoreSettings
from rmos_shared.store.identity import StoreIdentity, init_store
from rmos_shared.store.local import LocalStore


@dataclass(frozen=True, slots=True)
class Addresses:
    """How to reach what ``rmos up`` or ``rmos demo`` started."""

    pid: int
    broker_url: str
    advisory_url: str
    #: Secret; the file is readable by its owner only.
    advisory_token: str | None
    flower_url: str | None = None
    #: Secret, ``user:password``.
    flower_auth: str | None = None


class Home:
    """One directory: ``runs``, ``advisories``, ``valkey``, ``logs``, and while it is up, ``up.json``."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; nothing is made until it is needed."""
        self.root = root.resolve()
        self.runs_dir = self.root / "runs"
        self.advisory_dir = self.root / "advisories"
        self.server_dir = self.root / "valkey"
        self.logs_dir = self.root / "logs"
        self._up = self.root / "up.json"
        #: Which store this home belongs to.
        self._pin = self.root / "store.json"

    def announce(self, addresses: Addresses) -> None:
        """Tell other commands on this home how to reach the processes."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._up, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(addresses), file)

    def withdraw(self) -> None:
        """Take the announcement back."""
        self._up.unlink(missing_ok=True)

    def addresses(self) -> Addresses | None:
        """Return what is announced, if the process that did so still lives."""
        try:
            told = Addresses(**json.loads(self._up.read_text()))
            os.kill(told.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return told

    def producer_settings(self, **values: object) -> ProducerSettings:
        """Return the settings; ``RMOS_BROKER_URL`` outranks what is announced here.

        Raises:
            BrokerUnavailable: neither names a broker.
            SettingsInvalid: naming the variable that is wrong.
        """
        if "RMOS_BROKER_URL" not in os.environ:
            told = self.addresses()
            if told is None:
                raise BrokerUnavailable(
                    f"nothing runs on {self.root} and RMOS_BROKER_URL is not set; "
                    "start `rmos up` on it, or set the variable"
                )
            values = {"broker_url": told.broker_url, **values}
        return ProducerSettings.load(**values)

    def store_settings(self) -> StoreSettings:
        """Return the settings; ``RMOS_RUNS_DIR`` outranks this home's own directory.

        The store is held to the identity that it had at this home's first start, unless ``RMOS_STORE_ID``
        says another.
        """
        settings = self._store_settings()
        if settings.store_id is None:
            return settings.model_copy(update={"store_id": self._pinned(settings.runs_dir)})
        return settings

    def open_store(self) -> StoreIdentity:
        """Return the identity of this home's store, which is made at the first start and never again.

        Were it made again, a disk that is not mounted would be taken for a new home.

        Raises:
            StoreUnavailable: the store is away, or another one is in its place.
        """
        settings = self.store_settings()
        if settings.store_id is None:
            self.root.mkdir(parents=True, exist_ok=True)
            return self.init_store()
        return LocalStore(settings.runs_dir, store_id=settings.store_id).identity()

    def init_store(self, *, adopt: bool = False) -> StoreIdentity:
        """Make the store, or take the one that is there, and hold this home to it from now on.

        Raises:
            StoreUnavailable: see ``identity.init_store``.
        """
        runs_dir = self._store_settings().runs_dir
        identity = init_store(runs_dir, adopt=adopt)
        # A store elsewhere, as on a server, needs no home.
        if self.root.is_dir():
            # Whole or not at all: half a file would read as a home that never started.
            draft = self._pin.with_suffix(".new")
            draft.write_text(json.dumps({"runs_dir": str(runs_dir.resolve()), "store_id": identity.store_id}))
            draft.replace(self._pin)
        return identity

    def _store_settings(self) -> StoreSettings:
        return StoreSettings.load(**({} if "RMOS_RUNS_DIR" in os.environ else {"runs_dir": self.runs_dir}))

    def _pinned(self, runs_dir: Path) -> str | None:
        try:
            told = json.loads(self._pin.read_text())
            return str(told["store_id"]) if told["runs_dir"] == str(runs_dir.resolve()) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
