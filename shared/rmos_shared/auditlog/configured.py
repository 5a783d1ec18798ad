"""The configured key of the audit log, and the public keys of those that it follows."""

from __future__ import annotations

import os
from pathlib import Path

from rmos_shared.auditlog.keys import load_file, load_pem, read_public
from rmos_shared.auditlog.note import KeyKind, NoteInvalid, Signer, Verifier
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.audit import AuditSettings


def signer_of(settings: AuditSettings, origin: str) -> Signer | None:
    """Return the configured key; None where there is none, and the log is sealed unsigned.

    Raises:
        SettingsInvalid: it cannot be read; the text never holds any of it.
    """
    if settings.audit_key is not None:
        return load_pem(settings.audit_key, origin)
    return None if settings.audit_key_file is None else load_file(settings.audit_key_file, origin)


def earlier_keys(public_file: Path, signer: Signer) -> list[str]:
    """Return the public keys that signed the log before ``signer``, newest first, as a rotation wrote them.

    ``public_file`` lies beside the private key, and is to be believed as that is. The store is not asked:
    whoever can write to it, and has no key, could name one of his own there as an earlier one, for it is the
    earlier key that signs an introduction, never the later.

    Raises:
        SettingsInvalid: the file is of another key, holds something else than keys of the log, or may be
            written by others than its owner.
    """
    if not os.path.lexists(public_file):
        return []
    lines, is_safe = read_public(public_file)
    try:
        first, *earlier = map(Verifier.parse, lines)
    except (NoteInvalid, ValueError) as error:
        raise SettingsInvalid(f"{public_file} does not hold public keys, one on each line") from error
    if first.name != signer.name:
        return []  # a key may sign the logs of two stores
    if first.vkey != signer.vkey:
        raise SettingsInvalid(
            f"{public_file} is not the public half of the key beside it; the two files of a key go together"
        )
    if any((key.name, key.kind) != (signer.name, KeyKind.ED25519) for key in earlier):
        raise SettingsInvalid(f"{public_file} holds a key that is none of {signer.name}")
    if earlier and not is_safe:
        raise SettingsInvalid(
            f"{public_file} may be written by others than its owner, so the earlier keys in it are not "
            f"believed; look at them, then `chmod 644 {public_file}`"
        )
    return [key.vkey for key in earlier]
