"""The configured key of the audit log."""

from __future__ import annotations

from rmos_shared.auditlog.keys import load_file, load_pem
from rmos_shared.auditlog.note import Signer
from rmos_shared.settings.audit import AuditSettings


def signer_of(settings: AuditSettings, origin: str) -> Signer | None:
    """Return the configured key; None where there is none, and the log is sealed unsigned.

    Raises:
        SettingsInvalid: it cannot be read; the text never holds any of it.
    """
    if settings.audit_key is not None:
        return load_pem(settings.audit_key, origin)
    return None if settings.audit_key_file is None else load_file(settings.audit_key_file, origin)
