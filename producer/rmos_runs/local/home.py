"""The home of a local installation: where its processes keep their state and say how to reach them."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rmos_shared.errors import BrokerUnavailable, SettingsInvalid
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.settings.index import SQLITE, IndexSettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.store.choice import chosen_store
from rmos_shared.store.identity import StoreIdentity, init_store


@dataclass(frozen=True, slots=True)
class Addresses:
    """How to reach what ``rmos up`` or ``rmos demo`` started."""

    pid: int
    #: Secret: it holds the password.
    broker_url: str
    advisory_url: str
    #: Secret; the file is readable by its owner only.
    advisory_token: str | None
    flower_url: str | None = None
    gateway_url: str | None = None
    #: Secret, ``user:password``.
    flower_auth: str | None = None
    #: By process, where a worker serves ``/livez`` and ``/metrics``.
    worker_urls: Mapping[str, str] = field(default_factory=dict)
    #: Processes that end again and again, and wait to be started once more.
    held_back: tuple[str, ...] = ()


class Home:
    """One directory, closed to others: ``runs``, ``advisories``, ``valkey``, ``logs``, and how to reach them.

    ``home.json`` is what a home remembers for good: its store's identity, its ports and its secrets.
    ``up.json`` is there while it is up.
    """

    def __init__(self, root: Path) -> None:
        """Use ``root``; nothing is made until it is needed."""
        self.root = root.resolve()
        self.runs_dir = self.root / "runs"
        self.advisory_dir = self.root / "advisories"
        self.server_dir = self.root / "valkey"
        self.logs_dir = self.root / "logs"
        self.keys_file = self.root / "api-keys.jsonl"
        self.audit_key_file = self.root / "audit.pem"
        self.lock_file = self.root / "home.lock"
        self._up = self.root / "up.json"
        self._env = self.root / "env"
        self._memory = self.root / "home.json"

    def make(self) -> None:
        """Make the directory, and close it to others."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    # -- while it is up -------------------------------------------------------------------------------

    def announce(self, addresses: Addresses) -> None:
        """Tell other commands on this home how to reach the processes, and shells by the file ``env``.

        ``up.json`` comes last: who waits for it may source ``env`` at once.
        """
        variables = {
            "RMOS_HOME": str(self.root),
            "RMOS_BROKER_URL": addresses.broker_url,
            "RMOS_ADVISORY_URL": addresses.advisory_url,
            "RMOS_ADVISORY_TOKEN": addresses.advisory_token,
            "RMOS_GATEWAY_URL": addresses.gateway_url,
        }
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items() if value)
        self._write(self._env, "".join(lines))
        self._write(self._up, json.dumps(asdict(addresses)))

    def withdraw(self) -> None:
        """Take the announcement back."""
        self._up.unlink(missing_ok=True)
        self._env.unlink(missing_ok=True)

    def addresses(self) -> Addresses | None:
        """Return the announced addresses, if the process that announced them still lives."""
        try:
            fields = json.loads(self._up.read_text())
            addresses = Addresses(**{**fields, "held_back": tuple(fields["held_back"])})
            os.kill(addresses.pid, 0)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return addresses

    def make_keys_file(self) -> Path:
        """Return the file of API keys, made empty at the first start: keys added later count at once."""
        self.keys_file.touch(mode=0o600)
        return self.keys_file

    def audit_settings(self) -> AuditSettings:
        """Return the settings of the audit log; a key that lies in this home is used where none is named."""
        settings = AuditSettings.load()
        named = settings.audit_key is not None or settings.audit_key_file is not None
        if named or not self.audit_key_file.exists():
            return settings
        return AuditSettings.load(audit_key_file=self.audit_key_file)

    # -- what it remembers ----------------------------------------------------------------------------

    def port(self, name: str, choose: Callable[[], int]) -> int:
        """Return the port that ``name`` has had since this home's first start, when it was chosen."""
        return int(self._remembered("ports", name, choose))

    def secret(self, name: str) -> str:
        """Return a secret of this home, made at its first start."""
        return str(self._remembered("secrets", name, lambda: secrets.token_urlsafe(24)))

    def _remembered(self, kind: str, name: str, make: Callable[[], object]) -> Any:
        memory = self._recall()
        known = memory.setdefault(kind, {})
        if name not in known:
            known[name] = make()
            self._remember(memory)
        return known[name]

    def _recall(self) -> dict[str, Any]:
        """Return all that is remembered; nothing before the first start.

        Raises:
            SettingsInvalid: the file cannot be read. It is not made anew: a home that forgets which store it
                has would take an empty mount point for it.
        """
        try:
            return dict(json.loads(self._memory.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise SettingsInvalid(
                f"{self._memory} cannot be read ({type(error).__name__}); restore it from a backup, or "
                "remove it and check with `rmos store show` that the right store is mounted"
            ) from error

    def _remember(self, memory: Mapping[str, Any]) -> None:
        self._write(self._memory, json.dumps(memory, indent=1))

    def _write(self, file: Path, text: str) -> None:
        # Whole or not at all: half a file would read as a home that never started.
        draft = file.with_name(f"{file.name}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)

    # -- settings -------------------------------------------------------------------------------------

    def producer_settings(self, **values: object) -> ProducerSettings:
        """Return the settings; ``RMOS_BROKER_URL`` outranks the announced address.

        Raises:
            BrokerUnavailable: neither names a broker.
            SettingsInvalid: naming the variable that is wrong.
        """
        if "RMOS_BROKER_URL" not in os.environ:
            addresses = self.addresses()
            if addresses is None:
                raise BrokerUnavailable(
                    f"nothing runs on {self.root} and RMOS_BROKER_URL is not set; "
                    "start `rmos up` on it, or set the variable"
                )
            values = {"broker_url": addresses.broker_url, **values}
        return ProducerSettings.load(**values)

    def store_settings(self) -> StoreSettings:
        """Return the settings; ``RMOS_RUNS_DIR`` outranks this home's own directory.

        The store is held to the identity that it had at this home's first start, unless ``RMOS_STORE_ID``
        says another.
        """
        settings = self._store_settings()
        if settings.store_id is not None:
            return settings
        known = self._recall().get("stores", {})
        return settings.model_copy(update={"store_id": known.get(str(settings.runs_dir.resolve()))})

    def index_settings(self) -> IndexSettings:
        """Return the settings; ``RMOS_INDEX_URL`` outranks this home's file, which is for its own store."""
        if {"RMOS_INDEX_URL", "RMOS_RUNS_DIR"} & {*os.environ}:
            return IndexSettings.load()
        return IndexSettings.load(index_url=f"{SQLITE}{self.root / 'index.db'}")

    def open_store(self) -> StoreIdentity:
        """Return the identity of this home's store, which is made at the first start and never again.

        Were it made again, a disk that is not mounted would be taken for a new home.

        Raises:
            StoreUnavailable: the store is away, or another one is in its place.
        """
        settings = self.store_settings()
        if settings.store_id is None:
            self.make()
            return self.init_store()
        return chosen_store(settings).identity()

    def init_store(self, *, adopt: bool = False) -> StoreIdentity:
        """Make the store, or take the one that is there, and hold this home to it from now on.

        Raises:
            StoreUnavailable: see ``identity.init_store``.
        """
        runs_dir = self._store_settings().runs_dir
        if runs_dir == self.runs_dir:
            self.make()
            runs_dir.mkdir(mode=0o700, exist_ok=True)
        identity = init_store(runs_dir, adopt=adopt)
        # A store elsewhere, as on a server, needs no home.
        if self.root.is_dir():
            memory = self._recall()
            memory.setdefault("stores", {})[str(runs_dir.resolve())] = identity.store_id
            self._remember(memory)
        return identity

    def _store_settings(self) -> StoreSettings:
        return StoreSettings.load(**({} if "RMOS_RUNS_DIR" in os.environ else {"runs_dir": self.runs_dir}))
