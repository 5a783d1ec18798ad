"""How a new key of a log is introduced: by the key before it, in a signed note of its own.

Who can merely write to the ledger can have an act recorded; only who holds the key can have the log trust
another.
"""

from __future__ import annotations

from rmos_shared.auditlog.note import Note, NoteInvalid, Signer, Verifier, verified


def introduce(signer: Signer, vkey: str) -> str:
    """Return the note by which the key ``signer`` introduces the public key ``vkey``."""
    note = Note(_text(signer.verifier, vkey))
    return note.signed(signer.sign(note.text)).to_bytes().decode()


def introduces(note: str, vkey: str, verifier: Verifier) -> bool:
    """Say whether ``note`` introduces ``vkey``, signed by the key of ``verifier``."""
    try:
        parsed = Note.parse(note.encode())
        verified(parsed, [verifier])
    except (NoteInvalid, UnicodeEncodeError):
        return False
    return parsed.text == _text(verifier, vkey)


def _text(verifier: Verifier, vkey: str) -> str:
    # A log's key has the log's name.
    return f"rmos-runs key rotation\n{verifier.name}\n{vkey}\n"
