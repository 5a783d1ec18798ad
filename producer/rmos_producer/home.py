"""The home of a local installation: where its processes keep their state and say how to reach them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rmos_shared.errors import BrokerUnavailable
from rmos_shared.settings import ProducerSettings, StoreSettings


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
        """Return the settings; ``RMOS_RUNS_DIR`` outranks this home's own directory."""
        return StoreSettings.load(**({} if "RMOS_RUNS_DIR" in os.environ else {"runs_dir": self.runs_dir}))
