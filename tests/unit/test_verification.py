"""Every kind of damage is found in a store, by name, and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from rmos_shared.auditlog.layout import act_begun_key
from rmos_shared.canonical import canonical_json, sha256_hex
from rmos_shared.errors import RunNotFound, StoreUnavailable
from rmos_shared.ids import new_uuid7
from rmos_shared.runs import layout as keys
from rmos_shared.runs.model import RunArtifact
from rmos_shared.runs.reader import RunReader
from rmos_shared.runs.verification import Checked, StoreVerification
from rmos_shared.store.local import LocalStore
from support.audit_log import sealer_of
from support.records import HOUR, NOON, make_attempt, make_link, make_review, make_run
from support.runs import Runs
from support.stores import local_store

GCODE = b"G21\nG90\nM30\n"


@dataclass
class Whole:
    """A store with two days in it, and one of everything on the first."""

    root: Path
    run: RunArtifact
    #: The keys of the run, its link, review, attempt and attachment.
    run_key: str
    link_key: str
    review_key: str
    attempt_key: str
    attachment_key: str

    def path(self, key: str) -> Path:
        path = self.root / key
        path.chmod(0o640)
        return path


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    log = Runs(local_store(tmp_path / "runs"))
    attachment = log.writer.put_attachment(GCODE, ".nc")
    run = make_run(
        outputs={"gcode_path": attachment},
        hashes={**make_run().hashes.dump(), "gcode_sha256": sha256_hex(GCODE)},
    )
    other = make_run(NOON + 24 * HOUR)
    log.writer.put_runs([run, make_run(), other])
    link, review, attempt = make_link(run), make_review(make_link(run)), make_attempt(run)
    log.writer.attach(link)
    log.writer.attach(make_link(other))
    log.writer.add_review(review)
    log.writer.add_attempt(attempt)
    return Whole(
        tmp_path / "runs",
        run,
        keys.artifact_key(run),
        keys.link_key(run.date, run.run_id, link.advisory_id),
        keys.review_key(run.date, review),
        keys.attempt_key(run.date, attempt),
        attachment,
    )


def checked(root: Path) -> list[Checked]:
    verification = StoreVerification(LocalStore(root))
    return [
        *(file for day in verification.days() for file in verification.day(day)),
        *verification.elsewhere(),
    ]


def damaged(root: Path) -> dict[str, str]:
    return {file.key: file.damage for file in checked(root) if file.damage is not None}


def test_a_whole_store_has_no_damage_and_every_file_is_looked_at(whole: Whole) -> None:
    found = checked(whole.root)
    assert [file for file in found if file.damage] == []
    names = {path.relative_to(whole.root).as_posix() for path in whole.root.rglob("*") if path.is_file()}
    assert {file.key for file in found} == names - {"_store.json"}
    assert sorted(file.kind for file in found) == sorted(
        ["artifact"] * 3 + ["link"] * 2 + ["review", "attempt", "attachment"]
    )


def test_the_audit_log_and_the_acts_are_no_runs_and_no_damage(whole: Whole) -> None:
    store = LocalStore(whole.root)
    before, runs = checked(whole.root), list(RunReader(store).list_runs())
    store.create(act_begun_key(whole.run.date, new_uuid7()), b"{}")
    # The log begins now: what is younger is not adopted.
    sealed = sealer_of(store).seal([], now=datetime.now(UTC), feed_at_end=True)
    assert sealed is not None
    # The runs and what belongs to them, three of a second day among them, and the act.
    assert sealed.seal.seal.entries == len(before) + 2
    assert len(list(store.list("_log/"))) > 3
    assert checked(whole.root) == before
    assert list(RunReader(store).list_runs()) == runs


def altered(path: Path, **fields: object) -> None:
    path.write_bytes(canonical_json({**json.loads(path.read_bytes()), **fields}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def in_new_directory(path: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"")


def elsewhere(path: Path) -> None:
    path.rename(path.with_name(f"0{path.name[1:]}"))


#: What is done to the store, which file is named for it, and a word of the reason.
DAMAGE: dict[str, tuple[Callable[[Whole], object], Callable[[Whole], str], str]] = {
    "artifact cut short": (lambda w: cut(w.path(w.run_key)), lambda w: w.run_key, "not JSON"),
    "artifact emptied": (lambda w: w.path(w.run_key).write_bytes(b""), lambda w: w.run_key, "empty"),
    "artifact altered": (
        lambda w: altered(w.path(w.run_key), feasibility={"risk_level": "GREEN"}),
        lambda w: w.run_key,
        "feasibility_sha256 is not the hash",
    ),
    "artifact of another name": (
        lambda w: shutil.copy(w.path(w.run_key), w.root / keys.run_key(w.run.date, new_uuid7(NOON))),
        lambda w: next(k for k in damaged(w.root) if k != w.run_key),
        "belongs under another name",
    ),
    "directory for an artifact": (  # F6
        lambda w: directory(w.path(w.run_key)),
        lambda w: w.run_key,
        "not a regular file",
    ),
    "link to nothing for an artifact": (
        lambda w: replaced_by_link(w.root / w.run_key),
        lambda w: w.run_key,
        "symbolic link",
    ),
    "link cut short": (lambda w: cut(w.path(w.link_key)), lambda w: w.link_key, "not JSON"),
    "directory for a link": (  # F6
        lambda w: directory(w.path(w.link_key)),
        lambda w: w.link_key,
        "not a regular file",
    ),
    "review cut short": (lambda w: cut(w.path(w.review_key)), lambda w: w.review_key, "not JSON"),
    "directory for a review": (lambda w: directory(w.path(w.review_key)), lambda w: w.review_key, "not a"),
    "attempt altered": (
        lambda w: altered(w.path(w.attempt_key), extra=1),
        lambda w: w.attempt_key,
        "extra",
    ),
    "attachment altered": (
        lambda w: w.path(w.attachment_key).write_bytes(b"G0"),
        lambda w: w.attachment_key,
        "another hash",
    ),
    "attachment gone": (lambda w: w.path(w.attachment_key).unlink(), lambda w: w.run_key, "not stored"),
    "review of no link": (lambda w: w.path(w.link_key).unlink(), lambda w: w.review_key, "not stored"),
    "foreign file in a partition": (
        lambda w: (w.root / "2026-08-01/notes.txt").write_bytes(b""),
        lambda _: "2026-08-01/notes.txt",
        "no artifact and no link",
    ),
    "foreign directory at the root": (
        lambda w: in_new_directory(w.root / "backup"),
        lambda _: "backup",
        "neither a day",
    ),
    "file for a partition": (
        lambda w: (w.root / "2026-08-09").write_bytes(b""),
        lambda _: "2026-08-09",
        "stands there",
    ),
    "file for the reviews of a run": (
        lambda w: (w.root / "_reviews/2026-08-01/x").write_bytes(b""),
        lambda _: "_reviews/2026-08-01/x",
        "empty",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(whole: Whole, kind: str) -> None:
    damage, named, reason = DAMAGE[kind]
    damage(whole)
    found = damaged(whole.root)
    key = named(whole)
    assert reason in found.pop(key)
    # An attachment that lies is told twice: by its own name, and by the artifact that names it.
    assert set(found) <= ({whole.run_key} if kind == "attachment altered" else set())


def test_the_original_bytes_of_a_migrated_run_must_be_there(whole: Whole) -> None:
    log = Runs(LocalStore(whole.root))
    original = log.writer.put_attachment(b"{NaN}", ".json")
    migrated = make_run(meta={"legacy": {"original": original, "source_sha256": sha256_hex(b"{NaN}")}})
    log.writer.put_run(migrated)
    assert damaged(whole.root) == {}
    whole.path(original).unlink()
    assert damaged(whole.root) == {
        keys.artifact_key(migrated): f"{original}, which it names, is not stored",
    }


def test_orphans_are_told_by_their_own_names(whole: Whole) -> None:
    whole.path(whole.run_key).unlink()
    found = damaged(whole.root)
    assert set(found) == {whole.link_key, whole.attempt_key}
    assert all("is not stored" in reason for reason in found.values())


def test_a_run_is_checked_with_all_that_belongs_to_it(whole: Whole) -> None:
    verification = StoreVerification(LocalStore(whole.root))
    assert {file.key for file in verification.run(whole.run.run_id)} == {
        whole.run_key,
        whole.link_key,
        whole.review_key,
        whole.attempt_key,
    }
    directory(whole.path(whole.link_key))
    assert [file.key for file in verification.run(whole.run.run_id) if file.damage] == [whole.link_key]
    for unknown in (new_uuid7(NOON), "old-run", "../../etc", "", "\ud800"):
        with pytest.raises(RunNotFound):
            list(verification.run(unknown))


def test_days_are_bounded_by_both_ends(whole: Whole) -> None:
    verification, day = StoreVerification(LocalStore(whole.root)), date(2026, 8, 1)
    assert verification.days() == ["2026-08-01", "2026-08-02"]
    assert verification.days(day + timedelta(days=1), None) == ["2026-08-02"]
    assert verification.days(None, day) == ["2026-08-01"]
    assert verification.days(day, day) == ["2026-08-01"]
    assert verification.days(date(2026, 8, 3), date.max) == []


def test_what_is_stored_while_it_is_checked_is_no_orphan(whole: Whole) -> None:
    class Racing(LocalStore):
        """Publishes a run and its link just after the artifacts were listed."""

        late = False

        def list(self, prefix: str, after: str = "") -> Iterator[str]:
            yield from list(super().list(prefix, after))
            if prefix == "2026-08-01/" and not self.late:
                self.late = True
                run = make_run()
                log = Runs(LocalStore(whole.root))
                log.writer.put_run(run)
                log.writer.attach(make_link(run))

    verification = StoreVerification(Racing(whole.root))
    assert [file for file in verification.day("2026-08-01") if file.damage] == []


def test_a_store_that_is_away_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        StoreVerification(LocalStore(tmp_path)).days()
