"""A store of a test's own."""

from __future__ import annotations

from pathlib import Path

from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore


def local_store(root: Path) -> LocalStore:
    """Make a store in ``root`` if there is none, and open it."""
    init_store(root)
    return LocalStore(root)
