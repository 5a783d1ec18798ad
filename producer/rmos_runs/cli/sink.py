"""Where a command writes a file to: a new file, whole or not at all, or standard output."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import typer

from rmos_shared.errors import Conflict

STANDARD_OUTPUT = "-"


class Sink:
    """Takes bytes; a file appears under its name only once all are written."""

    def __init__(self, name: str, *, force: bool | None, binary: bool, private: bool = False) -> None:
        """Write to the file ``name``, or to standard output for ``-``; with ``force`` replace a file.

        A command that never replaces one gives None. A ``private`` file is for its owner alone (0600).

        Raises:
            Conflict: the file is there.
            BadParameter: ``binary`` bytes would go to a terminal.
        """
        self.name = name
        self._force = force
        self._private = private
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        if name == STANDARD_OUTPUT:
            if binary and sys.stdout.isatty():
                raise typer.BadParameter("a terminal cannot show an archive; name a file with --output")
        elif not force and os.path.lexists(name):
            raise self._taken()

    @property
    def is_file(self) -> bool:
        """Whether it is a file, so that standard output is free."""
        return self.name != STANDARD_OUTPUT

    @property
    def sha256(self) -> str:
        """Over all that was written."""
        return self._digest.hexdigest()

    def take(self, pieces: Iterable[bytes]) -> None:
        """Write all that comes; when that fails, the file is as it was before.

        Raises:
            Conflict: the file has come to be meanwhile.
        """
        if not self.is_file:
            for piece in self._counted(pieces):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        target = Path(self.name)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        try:
            with open(draft, "xb", opener=self._opener) as file:
                for piece in self._counted(pieces):
                    file.write(piece)
            self._publish(draft, target)
        finally:
            with suppress(OSError):
                draft.unlink()

    def _opener(self, path: str, flags: int) -> int:
        # From its first byte on; what the user's mask takes away stays away.
        return os.open(path, flags, 0o600 if self._private else 0o666)

    def _publish(self, draft: Path, target: Path) -> None:
        if self._force:
            draft.replace(target)
            return
        try:
            target.hardlink_to(draft)
        except FileExistsError:
            raise self._taken() from None

    def _counted(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        for piece in pieces:
            self.size_bytes += len(piece)
            self._digest.update(piece)
            yield piece

    def _taken(self) -> Conflict:
        way = "name another file" if self._force is None else "name another file, or add --force"
        return Conflict(f"{self.name} is there already; {way}")
