"""From the settings to the artifact store: the one place that names an implementation."""

from __future__ import annotations

from rmos_shared.settings.store import StoreSettings
from rmos_shared.store.local import LocalStore


def chosen_store(settings: StoreSettings) -> LocalStore:
    """Return the store that the settings name, held to ``store_id`` where that is set; opens nothing yet."""
    return LocalStore(settings.runs_dir, store_id=settings.store_id)
