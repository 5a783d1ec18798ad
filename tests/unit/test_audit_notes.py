"""Signed notes, cosignatures and checkpoints, against those that others have published."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.auditlog.checkpoint import Checkpoint, origin_of
from rmos_shared.auditlog.note import (
    KeyKind,
    Note,
    NoteInvalid,
    Signature,
    Signer,
    Verifier,
    check_name,
    verified,
)

# -- published: the example of Go's package of signed notes, its keys made known with it -----------------

GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZ"
    "b6KE6RyyBwJnAM=\n"
)
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_KEY = Ed25519PrivateKey.from_private_bytes(
    base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
)

# A checkpoint of a log of certificates, as that and five witnesses signed it.
CT_NOTE = (Path(__file__).parents[1] / "data" / "witnessed_checkpoint.note").read_text()
CT_LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
CT_WITNESS = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
#: Of the example in the specification; its base64 is of a key that signed none of these.
OTHER_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"


def test_the_note_that_go_published_is_read_proven_and_written_again() -> None:
    note = Note.parse(GO_NOTE.encode())
    assert note.text == GO_TEXT
    assert note.to_bytes() == GO_NOTE.encode()
    (signed,) = verified(note, [Verifier.parse(OTHER_VKEY), Verifier.parse(GO_VKEY)])
    assert (signed.vkey, signed.name, signed.at) == (GO_VKEY, "PeterNeumann", None)


def test_the_key_that_go_published_signs_as_there() -> None:
    signer = Signer("PeterNeumann", GO_KEY)
    assert signer.vkey == GO_VKEY
    assert Note(GO_TEXT).signed(signer.sign(GO_TEXT)).to_bytes() == GO_NOTE.encode()


def test_a_checkpoint_of_a_public_log_is_proven_by_its_key_and_by_a_witness() -> None:
    checkpoint, note = Checkpoint.parse_note(CT_NOTE.encode())
    assert (checkpoint.origin, checkpoint.size) == ("arche2025h1.staging.ct.transparency.dev", 1_432_088_532)
    assert checkpoint.text == note.text
    log, witness = verified(note, [Verifier.parse(CT_LOG), Verifier.parse(CT_WITNESS)])
    assert (log.name, log.at) == (checkpoint.origin, None)
    assert (witness.name, witness.at) == ("remora.n621.de", datetime(2026, 5, 23, 21, 50, 24, tzinfo=UTC))


@pytest.mark.parametrize("vkey", [CT_LOG, CT_WITNESS])
def test_another_text_is_proven_by_none_of_them(vkey: str) -> None:
    note = Note.parse(CT_NOTE.replace("1432088532", "1432088533", 1).encode())
    with pytest.raises(NoteInvalid, match="does not hold"):
        verified(note, [Verifier.parse(vkey)])


def test_another_time_of_a_witness_is_not_proven() -> None:
    signer = Signer("w", GO_KEY, KeyKind.COSIGNATURE)
    at = datetime(2026, 8, 1, tzinfo=UTC)
    signature = signer.sign(GO_TEXT, at)
    assert signer.verifier.verify(GO_TEXT, signature).at == at
    later = Signature(signature.name, signature.key_id, (1).to_bytes(8) + signature.data[8:])
    with pytest.raises(NoteInvalid, match="does not hold"):
        signer.verifier.verify(GO_TEXT, later)
    for data in (b"", b"\xff" * 72, b"\0" * 8):
        with pytest.raises(NoteInvalid):
            signer.verifier.verify(GO_TEXT, Signature("w", signature.key_id, data))


def test_a_log_signs_without_a_time_and_a_witness_with_one() -> None:
    with pytest.raises(ValueError, match="with a time"):
        Signer("log", GO_KEY).sign(GO_TEXT, datetime.now(UTC))
    with pytest.raises(ValueError, match="with a time"):
        Signer("w", GO_KEY, KeyKind.COSIGNATURE).sign(GO_TEXT)


def test_one_key_has_another_id_as_a_witness_than_as_a_log() -> None:
    log, witness = Signer("x", GO_KEY), Signer("x", GO_KEY, KeyKind.COSIGNATURE)
    assert log.verifier.key_id != witness.verifier.key_id
    assert not witness.verifier.is_of(log.sign(GO_TEXT))


def test_signatures_of_others_say_nothing_and_one_of_a_known_key_that_does_not_hold_spoils_all() -> None:
    other = Signer("other", Ed25519PrivateKey.generate())
    known = Signer("known", GO_KEY)
    note = Note(GO_TEXT).signed(other.sign(GO_TEXT))
    with pytest.raises(NoteInvalid, match="no signature is of a key that is trusted"):
        verified(note, [known.verifier])
    with pytest.raises(NoteInvalid, match="no signature"):
        verified(Note(GO_TEXT), [known.verifier])
    note = note.signed(known.sign(GO_TEXT))
    assert len(verified(note, [known.verifier])) == 1
    with pytest.raises(NoteInvalid, match="of other does not hold"):
        verified(
            note.signed(Signature("other", other.verifier.key_id, b"\0" * 64)),
            [known.verifier, other.verifier],
        )


def test_a_note_without_signatures_is_that_of_a_log_without_a_key() -> None:
    note = Note("a\n1\n\nx\n")
    assert note.to_bytes() == b"a\n1\n\nx\n\n"
    assert Note.parse(note.to_bytes()) == note


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"text\n",
        b"text\n\nno signature\n",
        b"\xff\n\n",
        "text\n\n— name\n".encode(),
        "text\n\n— name !!!!\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAAA\n".encode(),
        "text\n\n— name AAAAAA==".encode(),
        "text\n\n—  AAAAAAA=\n".encode(),
        "text\n\n— na+me AAAAAAA=\n".encode(),
        b"text\n\n- name AAAAAAA=\n",
        b"te\txt\n\n",
        b"te\rxt\n\n",
        b"te\0xt\n\n",
        b"x" * 70_000 + b"\n\n",
        ("x\n\n" + "— name AAAAAAA=\n" * 101).encode(),
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(NoteInvalid):
        Note.parse(data)


@given(st.text(), st.binary(max_size=200))
def test_whatever_is_read_is_written_again_as_it_was(text: str, tail: bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") + tail
    try:
        note = Note.parse(data)
    except NoteInvalid:
        return
    assert note.to_bytes() == data


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3+",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("c74f20a3", "C74F20A3"),
        GO_VKEY.replace("PeterNeumann", "Peter Neumann"),
        GO_VKEY[:-4],
        GO_VKEY + "\n",
        f"ecdsa+c74f20a3+{base64.b64encode(bytes([2]) + bytes(32)).decode()}",
    ],
)
def test_what_is_no_public_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteInvalid):
        Verifier.parse(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\0b"])
def test_what_is_no_name_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(NoteInvalid):
        check_name(name)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(KeyKind))
def test_every_public_key_is_read_as_it_was_written(seed: bytes, kind: KeyKind) -> None:
    signer = Signer("rmos-runs/x", Ed25519PrivateKey.from_private_bytes(seed), kind)
    assert Verifier.parse(signer.vkey).vkey == signer.vkey


@given(st.integers(0, 10**12), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_as_it_was_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin_of("01a20d3c3a8b73898836cc2b6ecc4ed6"), size, root)
    assert Checkpoint.parse(checkpoint.text) == checkpoint


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"o\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"o\n01\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n1 \n{ROOT}\n",
        f"o\n\u0661\n{ROOT}\n",
        f"o\n1\n{ROOT[:-1]}\n",
        f"o\n1\n{ROOT[:-2]}B=\n",
        f"o\n1\n{ROOT}\nextension\n",
        f"o\n{'9' * 20}\n{ROOT}\n",
        "o\n1\n\n",
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(text: str) -> None:
    with pytest.raises(NoteInvalid):
        Checkpoint.parse(text)


def test_a_witness_signs_whole_seconds() -> None:
    signer = Signer("w", GO_KEY, KeyKind.COSIGNATURE)
    at = datetime(2026, 8, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    assert signer.verifier.verify(GO_TEXT, signer.sign(GO_TEXT, at)).at == at - timedelta(
        microseconds=999_999
    )
