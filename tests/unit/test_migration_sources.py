"""Old directories and files as sources: everything in them is yielded, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmos_runs.operations.migration import sources
from rmos_runs.operations.migration.preparation import prepared
from rmos_runs.operations.migration.report import Entry, Fate
from rmos_runs.operations.migration.scratch import Scratch
from rmos_runs.operations.migration.sources import (
    Contents,
    RawRecord,
    Source,
    SourceKind,
    Stray,
    check_apart,
    source_of,
)
from rmos_shared.errors import SourceInvalid, StoreUnavailable
from support.old_records import (
    draft_run,
    dumped,
    old_link,
    old_link_v1,
    old_run,
    put,
    put_link,
    run_id_of,
    shuffled,
    state_of,
    write_file,
    write_flat,
    write_partitioned,
)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch() as made:
        yield made


def records(source: Source) -> list[RawRecord]:
    return [item for item in source.records() if isinstance(item, RawRecord)]


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (SourceKind.PARTITIONED, write_partitioned),
        (SourceKind.FLAT, write_flat),
        (SourceKind.FILE, write_file),
    ],
)
def test_the_kind_is_found_out_and_every_run_comes_once(
    tmp_path: Path, scratch: Scratch, kind: SourceKind, write: object
) -> None:
    assert callable(write)
    write(tmp_path / "old", 50)
    before = state_of(tmp_path)
    source = source_of(tmp_path / "old", None, scratch)
    found = records(source)
    assert (source.kind, len(found), len({item.named for item in found})) == (kind, 50, 50)
    assert all(item.data and item.reason is None for item in found)
    assert source.done == source.total
    assert state_of(tmp_path) == before


def test_a_list_has_no_names(tmp_path: Path, scratch: Scratch) -> None:
    write_file(tmp_path / "runs.json", 3, as_list=True)
    found = records(source_of(tmp_path / "runs.json", None, scratch))
    assert [(item.place, item.named) for item in found] == [(f"runs.json#{n}", None) for n in (1, 2, 3)]


def test_names_that_are_no_records_are_counted_and_left_alone(tmp_path: Path, scratch: Scratch) -> None:
    write_partitioned(tmp_path / "old", 4)
    put(tmp_path / "old" / "2025-12-18" / "x.json.tmp", b"half")
    put(tmp_path / "old" / "_attachments" / "ab" / "x.json", b"{}")
    source = source_of(tmp_path / "old", None, scratch)
    # _index.json, _advisory_lookup.json, _attachments and the temporary file.
    assert source.contents() == Contents(runs=4, links=1, ignored=4)


def test_what_is_no_regular_file_is_named_and_never_followed(tmp_path: Path, scratch: Scratch) -> None:
    root = tmp_path / "old"
    write_flat(root, 1)
    put(tmp_path / "elsewhere.json", dumped(old_run(1)))
    (root / "a_link.json").symlink_to(tmp_path / "elsewhere.json")
    (root / "b_gone.json").symlink_to(tmp_path / "nowhere")
    (root / "c_directory.json").mkdir()
    os.mkfifo(root / "d_fifo.json")
    (root / "e_empty.json").touch()
    (Path(os.fsdecode(os.fsencode(root) + b"/f\xff\n.json"))).touch()
    found = {item.place: item.reason for item in records(source_of(root, None, scratch))}
    assert found.pop(f"{draft_run(0)['run_id']}.json") is None
    assert found.pop("e_empty.json") is None
    assert found.pop("f\\\\xff\\n.json") is None, "a foreign name is shown in one line of text"
    assert found == {
        "a_link.json": "is a symbolic link, which is not followed",
        "b_gone.json": "is a symbolic link, which is not followed",
        "c_directory.json": "is no regular file",
        "d_fifo.json": "is no regular file",
    }


def test_too_large_a_file_is_named_and_not_read(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_RECORD_BYTES", 100)
    put(tmp_path / "old" / "big.json", b"x" * 101)
    (found,) = records(source_of(tmp_path / "old", None, scratch))
    assert (found.data, found.reason) == (None, "larger than 100 bytes")


# Links


def links_of(source: Source) -> dict[str, list[str]]:
    return {str(item.named): [link.named for link in item.links] for item in records(source)}


def test_links_of_both_kinds_go_with_their_run(tmp_path: Path, scratch: Scratch) -> None:
    root = tmp_path / "old"
    write_partitioned(root, 2, links=False)
    run = old_run(1)
    put_link(root, run, old_link("a"))
    put_link(root, run, old_link_v1(run["run_id"], "b"), prefix="run_")
    assert links_of(source_of(root, None, scratch)) == {run_id_of(0): [], run_id_of(1): ["a", "b"]}


def test_a_link_goes_with_the_longest_name_that_is_a_run(tmp_path: Path, scratch: Scratch) -> None:
    root = tmp_path / "old"
    for name in ("a", "a_advisory", "run_a", "a_advisory_advisory_x", "run_a_advisory_y", "a_advisory_z"):
        put(root / f"{name}.json", b"{}")
    assert links_of(source_of(root, None, scratch)) == {"a": ["z"], "a_advisory": ["x"], "run_a": ["y"]}


def test_a_link_without_a_run_is_yielded_by_itself(tmp_path: Path, scratch: Scratch) -> None:
    root = tmp_path / "old"
    write_partitioned(root, 1, links=False)
    put(root / "2025-12-18" / "run_0_advisory_a.json", dumped(old_link("a")))
    strays = [item for item in source_of(root, None, scratch).records() if isinstance(item, Stray)]
    assert strays == [Stray("2025-12-18/run_0_advisory_a.json")]


# What is refused


def test_what_is_no_source_is_refused(tmp_path: Path, scratch: Scratch) -> None:
    write_flat(tmp_path / "flat", 1)
    write_file(tmp_path / "runs.json", 1)
    (tmp_path / "loop").symlink_to("loop")
    for path, kind, word in (
        (tmp_path / "nowhere", None, "No such file"),
        (tmp_path / "loop", None, "cannot be read"),
        (tmp_path / "flat", SourceKind.FILE, "name the file itself"),
        (tmp_path / "runs.json", SourceKind.FLAT, "is a file"),
        (Path("/dev/null"), None, "neither a directory nor a regular file"),
    ):
        with pytest.raises(SourceInvalid, match=word):
            source_of(path, kind, scratch)


def test_a_directory_of_two_kinds_must_be_told(tmp_path: Path) -> None:
    root = tmp_path / "old"
    write_partitioned(root, 3, links=False)
    put(root / "run_9.json", dumped(draft_run(9)))
    with Scratch() as scratch, pytest.raises(SourceInvalid, match="say --from"):
        source_of(root, None, scratch)
    for kind, count in ((SourceKind.PARTITIONED, 3), (SourceKind.FLAT, 1)):
        with Scratch() as scratch:
            assert len(records(source_of(root, kind, scratch))) == count


def test_a_source_may_not_overlap_the_store(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "runs")
    for source in (tmp_path, tmp_path / "runs", tmp_path / "runs/below", tmp_path / "alias"):
        with pytest.raises(SourceInvalid, match="overlap"):
            check_apart(source, tmp_path / "runs")
    check_apart(tmp_path / "runs-old", tmp_path / "runs")


# Ids that come twice, and scratch


def test_of_one_id_the_first_record_counts_and_the_others_are_named(tmp_path: Path, scratch: Scratch) -> None:
    root = tmp_path / "old"
    write_partitioned(root, 1, links=False)
    put(root / "2026-01-01" / f"{run_id_of(0)}.json", dumped(old_run(0, mode="mill")))
    put(root / "2026-01-02" / "copy.json", dumped(old_run(0)))
    put(root / "2026-01-02" / "copy_advisory_a.json", dumped(old_link("a")))
    entries = [item for item in prepared(source_of(root, None, scratch), scratch) if isinstance(item, Entry)]
    assert [(entry.place, entry.fate, entry.fault) for entry in entries] == [
        (f"2026-01-01/{run_id_of(0)}.json", Fate.DUPLICATE, True),
        ("2026-01-02/copy.json", Fate.REPEATED, False),
        ("2026-01-02/copy_advisory_a.json", Fate.ORPHAN, True),
    ]


def test_scratch_keeps_many_names_in_order(scratch: Scratch) -> None:
    for number in shuffled(1, 2_500):
        scratch.add_name(b"day", b"%05d" % number)
    scratch.add_name(b"", b"x")
    assert list(scratch.branches()) == [b"", b"day"]
    assert list(scratch.names(b"day")) == [b"%05d" % number for number in range(2_500)]


def test_a_full_directory_for_temporary_files_is_told_as_such() -> None:
    def fill() -> None:
        with Scratch() as scratch:
            scratch._database.execute("PRAGMA max_page_count = 8")
            for number in range(10_000):
                scratch.add_name(b"day", b"%05d" % number)

    with pytest.raises(StoreUnavailable, match="SQLITE_TMPDIR"):
        fill()
