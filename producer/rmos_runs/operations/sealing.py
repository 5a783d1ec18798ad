"""The configured key of the audit log."""

from __future__ import annotations

from rmos_runs.local.home import Home
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.keys import load_file, load_pem
from rmos_shared.auditlog.note import Signer
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.choice import chosen_store


def log_origin(home: Home) -> str:
    """Return the name of the log of the home's store.

    Raises:
        StoreUnavailable: the store is away, and no setting tells its identity.
    """
    settings = home.store_settings()
    return origin_of(settings.store_id or chosen_store(settings).identity().store_id)


def signer_of(settings: AuditSettings, origin: str) -> Signer | None:
    """Return the configured key; None where there is none, and logs are sealed unsigned.

    Raises:
        SettingsInvalid: it cannot be read; the text never holds any of it.
    """
    if settings.audit_key is not None:
        return load_pem(settings.audit_key, origin)
    return None if settings.audit_key_file is None else load_file(settings.audit_key_file, origin)
