"""The archive that a sink without seeking can take, read by others than its writer."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmos_runs.operations.manifest import Manifest
from rmos_runs.operations.zip_stream import PIECE_BYTES, Entry, ZipStream, joined
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import CorruptArtifact


def archive(files: dict[str, bytes], **limits: int) -> bytes:
    with ZipStream(**limits) as stream:
        parts = [piece for name, data in files.items() for piece in stream.add(Entry.of(name, data))]
        return b"".join([*parts, *stream.end()])


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        return {name: read.read(name) for name in read.namelist()}


FILES = st.dictionaries(
    st.sampled_from(["a", "b.txt", "c/d", "c/e.json", "f/g/h", "README.txt", "z"]),
    st.binary(max_size=60),
    max_size=6,
)


@given(files=FILES, limit_32=st.integers(1, 200), limit_16=st.integers(1, 6))
@settings(max_examples=150)
def test_an_archive_is_read_back_also_where_numbers_need_zip64(
    files: dict[str, bytes], limit_32: int, limit_16: int
) -> None:
    plain = archive(files)
    assert unpacked(plain) == files
    assert plain == archive(files)
    assert unpacked(archive(files, limit_32=limit_32, limit_16=limit_16)) == files


def test_the_bytes_are_fixed_whatever_python_makes_them() -> None:
    data = archive({"a.txt": b"one\n", "b/c.txt": "½".encode() * 1000})
    assert sha256_hex(data) == "961854fda6d19afbe21f058f7db73dc997a24ad472a905d0ff45196e9b5d9578"


def test_times_modes_and_form_are_fixed() -> None:
    with zipfile.ZipFile(io.BytesIO(archive({"a": b"x" * 9}))) as read:
        (info,) = read.infolist()
    assert info.date_time == (1980, 1, 1, 0, 0, 0)
    assert info.external_attr >> 16 == 0o100444
    assert (info.compress_type, info.flag_bits, info.file_size) == (zipfile.ZIP_STORED, 0, 9)


def test_more_than_65535_files_are_no_more_than_any() -> None:
    files = {f"{number:05}": b"" for number in range(65_537)}
    with zipfile.ZipFile(io.BytesIO(archive(files))) as read:
        assert len(read.namelist()) == 65_537


@pytest.mark.parametrize("later", [b"other", b"longer than before", b""])
def test_what_changes_while_it_is_read_ends_the_archive(later: bytes) -> None:
    contents: Iterator[bytes] = iter([b"first", later])
    entry = Entry.measured("a", lambda: [next(contents)])
    with ZipStream() as stream, pytest.raises(CorruptArtifact, match="changed while it was read"):
        list(stream.add(entry))


def test_small_pieces_are_joined_and_large_ones_pass() -> None:
    pieces = [b"a"] * 10 + [b"b" * PIECE_BYTES] + [b"c"]
    assert [len(piece) for piece in joined(pieces)] == [PIECE_BYTES + 10, 1]


def test_a_manifest_has_a_line_for_each_file_as_sha256sum_writes_it() -> None:
    with Manifest() as manifest:
        manifest.add(Entry.of("a/b", b"x"))
        manifest.add(Entry.of("c", b""))
        entry = manifest.entry()
        assert b"".join(entry.pieces()) == (f"{sha256_hex(b'x')}  a/b\n{sha256_hex(b'')}  c\n").encode()
        assert entry.name == "MANIFEST.sha256"
