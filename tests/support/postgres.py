"""A real PostgreSQL of a test's own, from the machine's package: nothing of it outlives the block."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

#: Where Debian keeps them, apart from PATH; the newest comes last.
_PLACES = "/usr/lib/postgresql/*/bin"
#: PostgreSQL refuses to run as root, so a root's tests start it as the package's own user.
_USER = "postgres"
_START_SECONDS = 60
_STOP_SECONDS = 30


def postgres_programs() -> Path:
    """Return the directory of the server's programs; without one the test is skipped, in CI it fails."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/").glob(_PLACES[1:]))
    if places:
        return places[-1]
    if os.environ.get("CI"):
        pytest.fail("PostgreSQL is not installed, and CI must run this test")
    pytest.skip("PostgreSQL is not installed")


class PostgresServer:
    """Listens on a Unix socket alone, so that no port is taken; trusts whoever reaches the socket.

    Nothing is synced: a killed server keeps what was committed, for the machine itself goes on.
    """

    def __init__(self) -> None:
        self._programs = postgres_programs()
        # Not below pytest's own directories: they are closed to other users.
        self._directory = Path(tempfile.mkdtemp(prefix="rmos-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        try:
            if os.geteuid() == 0:
                account = pwd.getpwnam(_USER)
                os.chown(self._directory, account.pw_uid, account.pw_gid)
            self._run("initdb", "-D", "data", "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def url(self) -> str:
        """The address of the database that is always there."""
        return self._url("postgres")

    def new_database(self) -> str:
        """Make an empty database, and return its address."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def start(self) -> None:
        """Start it, and return once it answers."""
        program: list[str | Path] = [self._programs / "postgres", "-D", "data", "-k", self._directory]
        settings = ("listen_addresses=", "fsync=off", "full_page_writes=off")
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*program, *(word for setting in settings for word in ("-c", setting))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._account(),
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=5):
                return
            time.sleep(0.05)
        pytest.fail(f"PostgreSQL did not start: {(self._directory / 'log').read_text()}")

    def stop(self) -> None:
        """Break off what is under way, and end."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End at once, as in a crash; it recovers at its next start."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _remove(self) -> None:
        try:
            self.kill()
        finally:
            shutil.rmtree(self._directory)

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}@/{database}?host={self._directory}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_START_SECONDS,
            **self._account(),
        )
        assert done.returncode == 0, done.stderr

    def _account(self) -> dict[str, Any]:
        """Return what starts a process as one who may run PostgreSQL."""
        basics: dict[str, Any] = {"cwd": self._directory, "env": {"LC_ALL": "C", "PATH": os.defpath}}
        if os.geteuid() != 0:
            return basics
        account = pwd.getpwnam(_USER)
        return basics | {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
