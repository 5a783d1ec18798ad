"""The run log: what lies where, and what a reader sees of it."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmos_shared.canonical import canonical_json, canonical_sha256, sha256_hex
from rmos_shared.errors import (
    AdvisoryNotFound,
    BrokerUnavailable,
    CorruptArtifact,
    InvalidRequest,
    RunNotFound,
)
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.model import Failure, JobRecord, JobState
from rmos_shared.runs import layout as keys
from rmos_shared.runs.attachment_key import attachment_key
from rmos_shared.runs.compose import explanation
from rmos_shared.runs.model import ExplanationStatus, RunArtifact
from rmos_shared.store.base import Head, Outcome
from rmos_shared.store.memory import MemoryStore
from rmos_shared.telemetry.events import FileCorrupt
from support.events import events_in
from support.records import HOUR, NOON, make_attempt, make_link, make_review, make_run
from support.runs import Runs
from support.stores import local_store

CREATED, SAME, CONFLICT = Outcome.CREATED, Outcome.ALREADY_SAME, Outcome.CONFLICT
NONE, PENDING, READY, ERROR = (
    ExplanationStatus.NONE,
    ExplanationStatus.PENDING,
    ExplanationStatus.READY,
    ExplanationStatus.ERROR,
)


def make_job(state: JobState, failure: Failure | None = None) -> JobRecord:
    return JobRecord(
        job_id=new_uuid7(NOON),
        task="runs.suggest_and_attach",
        queue="runs.advise",
        state=state,
        run_id="r",
        request_id=None,
        payload_sha256="c" * 64,
        accepted_at_utc=NOON,
        changed_at_utc=NOON,
        crash_count=0,
        retry_count=0,
        failure=failure,
    )


def test_a_record_is_stored_as_the_canonical_json_of_its_dump() -> None:
    # Models in models and in lists, times, enumerations: all that the encoder meets beside plain JSON.
    log, run = Runs(MemoryStore()), make_run(status="BLOCKED")
    log.writer.put_run(run)
    link = make_link(run)
    log.writer.attach(link)
    review = make_review(link, note="½ turn")
    log.writer.add_review(review)
    job = make_job(JobState.DEAD, Failure(reason="conflict", error_type="Conflict", message="no"))
    for record in (run, link, review, make_attempt(run), log.reader.read(run.run_id), job):
        assert record.to_bytes() == canonical_json(record.dump())


FAILURE = Failure(reason="crash_loop", error_type="X", message="3 crashes in 3 claims")


class Jobs:
    """A ledger that knows one job."""

    def __init__(self, job: JobRecord | None = None) -> None:
        self.job = job
        self.asked: list[str] = []
        self.on_ask: Callable[[], object] = lambda: None

    def explanation_job(self, run_id: str) -> JobRecord | None:
        self.asked.append(run_id)
        self.on_ask()
        return self.job

    def explanation_jobs(self, run_ids: Sequence[str]) -> Mapping[str, JobRecord]:
        return {run_id: self.job for run_id in run_ids if self.job is not None}


class CountingStore(MemoryStore):
    """Remembers which keys were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.looked.append(key)
        return super().get(key)

    def head(self, key: str) -> Head | None:
        self.looked.append(key)
        return super().head(key)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def log(root: Path) -> Runs:
    return Runs(local_store(root))


def ids(log: Runs, date_from: date | None = None, date_to: date | None = None) -> list[str]:
    return [entry.artifact.run_id for entry in log.reader.list_runs(date_from, date_to) if entry.artifact]


# Runs


def test_a_run_lies_in_its_partition_as_its_canonical_bytes(log: Runs, root: Path) -> None:
    run = make_run()
    assert log.writer.put_run(run) is CREATED
    assert (root / "2026-08-01" / f"{run.run_id}.json").read_bytes() == run.to_bytes()
    assert log.reader.get_artifact(run.run_id) == run
    assert log.reader.get_bytes(run.run_id) == run.to_bytes()
    assert log.reader.artifact_key(run.run_id) == f"2026-08-01/{run.run_id}.json"


def test_a_run_is_put_once(log: Runs) -> None:
    run = make_run()
    other = make_run(run_id=run.run_id, tool_id="another")
    assert [log.writer.put_run(run), log.writer.put_run(run), log.writer.put_run(other)] == [
        CREATED,
        SAME,
        CONFLICT,
    ]
    assert log.writer.put_runs([other, run, make_run()]) == [CONFLICT, SAME, CREATED]
    assert log.reader.get_artifact(run.run_id) == run


def test_a_run_that_its_id_would_not_find_is_refused(log: Runs) -> None:
    with pytest.raises(InvalidRequest, match="created_at_utc"):
        log.writer.put_run(make_run(run_id=new_uuid7(NOON - timedelta(days=1))))
    assert list(log.reader.list_runs()) == []


def test_the_real_requests_pass_through_unchanged(log: Runs, sample_requests: list[dict[str, Any]]) -> None:
    feasibilities = [
        request["feasibility"]
        for request in sample_requests[:100]
        if isinstance(request.get("feasibility"), dict)
    ]
    assert feasibilities
    runs = [
        make_run(feasibility=value, hashes={"feasibility_sha256": canonical_sha256(value)})
        for value in feasibilities
    ]
    assert set(log.writer.put_runs(runs)) == {CREATED}
    assert [log.reader.get_artifact(run.run_id) for run in runs] == runs


def test_reading_by_a_new_id_touches_one_path() -> None:
    store = CountingStore()
    log = Runs(store)
    runs = [make_run(NOON - timedelta(days=days)) for days in range(50)]
    log.writer.put_runs(runs)
    log.reader.get_artifact(runs[30].run_id)
    log.reader.artifact_key(runs[40].run_id)
    assert store.looked == [f"2026-07-02/{runs[30].run_id}.json", f"2026-06-22/{runs[40].run_id}.json"]


@pytest.mark.parametrize("run_id", ["old", "Run_2019-03", "a_advisory", "A" * 128])
def test_an_older_id_is_found_wherever_it_lies(log: Runs, run_id: str) -> None:
    days = [date(1999, 12, 31), date(2019, 3, 4), date(2026, 8, 1), date(9999, 12, 31)]
    log.writer.put_runs([make_run(datetime(d.year, d.month, d.day, tzinfo=UTC)) for d in days])
    run = make_run(datetime(2019, 3, 4, tzinfo=UTC), run_id=run_id)
    log.writer.put_run(run)
    assert log.reader.get_artifact(run_id) == run
    assert log.reader.artifact_key(run_id) == f"2019-03-04/{run_id}.json"


@pytest.mark.parametrize(
    "run_id",
    [
        "019fbd32f06075eebd477872a4a1084e",
        "older",
        "",
        "..",
        "../2026-08-01/x",
        "a/b",
        "a\\b",
        "a\0",
        "a_advisory_b",
        "\ud800",
        "é",
    ],
)
def test_a_run_that_is_not_there_is_not_found(log: Runs, run_id: str) -> None:
    log.writer.put_run(make_run())
    assert log.reader.artifact_key(run_id) is None
    for verb in (
        log.reader.get_artifact,
        log.reader.get_bytes,
        log.reader.links,
        log.reader.reviews,
        log.reader.attempts,
        log.reader.read,
    ):
        with pytest.raises(RunNotFound) as caught:
            verb(run_id)
        str(caught.value).encode()  # whoever prints it can


# Attachments


def test_an_attachment_is_named_by_its_content(log: Runs, root: Path) -> None:
    digest = sha256_hex(b"G1 X1")
    key = log.writer.put_attachment(b"G1 X1", ".nc")
    assert key == attachment_key(b"G1 X1", ".nc") == f"_attachments/{digest[:2]}/{digest}.nc"
    assert log.writer.put_attachment(b"G1 X1", ".nc") == key
    assert (root / key).read_bytes() == b"G1 X1"


@pytest.mark.parametrize("suffix", ["nc", "/x", "/../x", ".", "..", ".a/b", ".NC", ".a.b.c", "." + "a" * 17])
def test_an_attachments_suffix_is_no_path(suffix: str) -> None:
    with pytest.raises(InvalidRequest, match="suffix"):
        attachment_key(b"", suffix)


def test_an_attachment_with_other_content_is_damage(
    log: Runs, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / attachment_key(b"G1 X1", ".nc")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"G1 X9")
    with pytest.raises(CorruptArtifact, match="another hash"):
        log.writer.put_attachment(b"G1 X1", ".nc")
    assert len(caplog.records) == 1
    assert path.read_bytes() == b"G1 X9"


# Links, reviews, attempts


def test_a_link_lies_beside_its_run(log: Runs, root: Path) -> None:
    run = make_run()
    link = make_link(run)
    log.writer.put_run(run)
    assert log.writer.attach(link) is CREATED
    assert log.writer.attach(link) is SAME
    assert (root / f"2026-08-01/{run.run_id}_advisory_adv1.json").read_bytes() == link.to_bytes()
    assert log.reader.links(run.run_id) == [link]


def test_a_retry_under_another_request_is_the_same_advisory(log: Runs) -> None:
    run = make_run()
    first = make_link(run)
    log.writer.put_run(run)
    log.writer.attach(first)
    retry = make_link(
        run, request_id="req-2", created_at_utc=NOON + 5 * HOUR, approved=False, reviewed_by=None
    )
    assert log.writer.attach(retry) is SAME
    assert log.reader.links(run.run_id) == [first]


def test_another_advisory_of_the_same_id_is_a_conflict(log: Runs) -> None:
    run = make_run()
    log.writer.put_run(run)
    log.writer.attach(make_link(run))
    assert log.writer.attach(make_link(run, advisory_sha256="d" * 64)) is CONFLICT


def test_attaching_over_a_corrupt_link_is_damage(log: Runs, root: Path) -> None:
    run = make_run()
    log.writer.put_run(run)
    (root / f"2026-08-01/{run.run_id}_advisory_adv1.json").write_bytes(b"{")
    with pytest.raises(CorruptArtifact):
        log.writer.attach(make_link(run))


def test_nothing_is_tied_to_a_run_that_is_not_there(log: Runs) -> None:
    run = make_run()
    link = make_link(run)
    with pytest.raises(RunNotFound):
        log.writer.attach(link)
    with pytest.raises(RunNotFound):
        log.writer.add_review(make_review(link))
    with pytest.raises(RunNotFound):
        log.writer.add_attempt(make_attempt(run))


def test_links_come_oldest_first(log: Runs) -> None:
    run = make_run()
    log.writer.put_run(run)
    links = [
        make_link(run, name, created_at_utc=NOON + hours * HOUR)
        for hours, name in ((1, "z"), (2, "b"), (2, "c"), (3, "a"))
    ]
    for link in random.sample(links, len(links)):
        log.writer.attach(link)
    assert log.reader.links(run.run_id) == links
    assert [advisory.link for advisory in log.reader.read(run.run_id).advisory_inputs] == links


def test_runs_whose_ids_overlap_keep_their_links_apart(log: Runs) -> None:
    short, long = make_run(run_id="a"), make_run(run_id="a_advisory")
    log.writer.put_runs([short, long])
    mine, theirs = make_link(short, "x"), make_link(long, "x")
    assert [log.writer.attach(mine), log.writer.attach(theirs)] == [CREATED, CREATED]
    # The file a_advisory_advisory_x.json could be this link too, and is not.
    assert log.writer.attach(make_link(short, "advisory_x")) is CONFLICT
    with pytest.raises(AdvisoryNotFound):
        log.writer.add_review(make_review(make_link(short, "advisory_x")))
    assert (log.reader.links("a"), log.reader.links("a_advisory")) == ([mine], [theirs])
    assert [entry.link for entry in log.reader.list_links()] == [mine, theirs]


def test_a_review_lies_apart_and_outranks_the_policy(log: Runs, root: Path) -> None:
    run = make_run()
    link = make_link(run, approved=False, reviewed_by=None)
    log.writer.put_run(run)
    log.writer.attach(link)
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    no = make_review(link, "rev1", approved=False)
    yes = make_review(link, "rev0", created_at_utc=NOON + 3 * HOUR)
    assert [log.writer.add_review(yes), log.writer.add_review(no), log.writer.add_review(no)] == [
        CREATED,
        CREATED,
        SAME,
    ]
    assert log.writer.add_review(make_review(link, "rev1")) is CONFLICT
    assert (root / f"_reviews/2026-08-01/{run.run_id}/rev1.json").read_bytes() == no.to_bytes()
    assert log.reader.reviews(run.run_id) == [no, yes]
    (advisory,) = log.reader.read(run.run_id).advisory_inputs
    assert (advisory.review, advisory.approved) == (yes, True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_review_needs_its_advisory(log: Runs) -> None:
    run = make_run()
    log.writer.put_run(run)
    log.writer.attach(make_link(run))
    with pytest.raises(AdvisoryNotFound, match="adv2"):
        log.writer.add_review(make_review(make_link(run, "adv2")))


def test_each_attempt_is_kept(log: Runs, root: Path) -> None:
    run = make_run()
    log.writer.put_run(run)
    job_id = new_uuid7(NOON) + ".explain"
    last = make_attempt(run, job_id=job_id, failed_at_utc=NOON + timedelta(milliseconds=1))
    first = make_attempt(run, job_id=job_id)
    assert [log.writer.add_attempt(last), log.writer.add_attempt(first), log.writer.add_attempt(first)] == [
        CREATED,
        CREATED,
        SAME,
    ]
    assert log.reader.attempts(run.run_id) == [first, last]
    assert (root / f"_attempts/2026-08-01/{run.run_id}/{job_id}_1785585600001.json").is_file()


# Composition


def test_a_composed_run_is_the_artifact_and_what_came_after(log: Runs) -> None:
    run = make_run()
    log.writer.put_run(run)
    composed = log.reader.read(run.run_id)
    stored, live = run.dump(), composed.dump()
    assert {name: live[name] for name in stored} == stored
    assert (composed.explanation_status, composed.explanation_summary) == (NONE, None)


NOTE = {"kind": "note"}


@pytest.mark.parametrize(
    ("links", "attempts", "job", "expected"),
    [
        ([], [], None, (NONE, None)),
        ([NOTE], [], None, (NONE, None)),
        ([], [], make_job(JobState.ACCEPTED), (PENDING, None)),
        ([], [], make_job(JobState.RUNNING), (PENDING, None)),
        ([], [], make_job(JobState.WAITING, FAILURE), (PENDING, None)),
        ([], [], make_job(JobState.DEAD, FAILURE), (ERROR, "crash_loop: 3 crashes in 3 claims")),
        ([], [], make_job(JobState.DEAD), (ERROR, "the job is dead and gave no reason")),
        ([], [{}], None, (ERROR, "retries_exhausted: no answer")),
        ([NOTE], [{}], None, (ERROR, "retries_exhausted: no answer")),
        (
            [],
            [{"message": "later", "failed_at_utc": NOON + HOUR}, {}],
            None,
            (ERROR, "retries_exhausted: later"),
        ),
        # The ledger's word on the last attempt outranks the record of it.
        ([], [{}], make_job(JobState.DEAD, FAILURE), (ERROR, "crash_loop: 3 crashes in 3 claims")),
        # A replayed job is pending again, whatever its earlier attempts came to.
        ([], [{}], make_job(JobState.ACCEPTED, FAILURE), (PENDING, None)),
        # Neither unfinished nor dead: the ledger has nothing to add.
        ([], [{}], make_job(JobState.DISCARDED, FAILURE), (ERROR, "retries_exhausted: no answer")),
        ([], [], make_job(JobState.DONE), (NONE, None)),
        ([{}], [], None, (READY, "All rules passed.")),
        ([{}], [{}], make_job(JobState.DEAD, FAILURE), (READY, "All rules passed.")),
        ([{}], [], make_job(JobState.RUNNING), (READY, "All rules passed.")),
        (
            [{"summary": "new", "created_at_utc": NOON + 2 * HOUR}, {}, NOTE | {"summary": "note"}],
            [],
            None,
            (READY, "new"),
        ),
    ],
)
def test_the_explanation_status(
    links: list[dict[str, Any]],
    attempts: list[dict[str, Any]],
    job: JobRecord | None,
    expected: tuple[ExplanationStatus, str | None],
) -> None:
    run = make_run()
    made_links = [make_link(run, f"adv{number}", **fields) for number, fields in enumerate(links)]
    made_attempts = [make_attempt(run, **fields) for fields in attempts]
    assert explanation(made_links, made_attempts, job) == expected
    # The same through the store and the ledger.
    log = Runs(MemoryStore(), Jobs(job))
    log.writer.put_run(run)
    for link in made_links:
        log.writer.attach(link)
    for attempt in made_attempts:
        log.writer.add_attempt(attempt)
    composed = log.reader.read(run.run_id)
    assert (composed.explanation_status, composed.explanation_summary) == expected


def test_a_run_that_is_explained_does_not_need_the_ledger() -> None:
    jobs = Jobs()
    log = Runs(MemoryStore(), jobs)
    run = make_run()
    log.writer.put_run(run)
    log.reader.read(run.run_id)
    assert jobs.asked == [run.run_id]
    log.writer.attach(make_link(run))
    log.reader.read(run.run_id)
    assert jobs.asked == [run.run_id]


def test_a_ledger_that_is_away_is_not_the_same_as_no_job() -> None:
    def away() -> None:
        raise BrokerUnavailable

    jobs = Jobs()
    jobs.on_ask = away
    log = Runs(MemoryStore(), jobs)
    run = make_run()
    log.writer.put_run(run)
    with pytest.raises(BrokerUnavailable):
        log.reader.read(run.run_id)


def test_a_job_that_finishes_while_the_run_is_read_is_not_missed() -> None:
    jobs = Jobs()
    log = Runs(MemoryStore(), jobs)
    run = make_run()
    log.writer.put_run(run)
    jobs.on_ask = lambda: log.writer.attach(make_link(run))
    assert log.reader.read(run.run_id).explanation_status is READY


# Lists


def test_runs_come_newest_first_within_inclusive_dates(log: Runs) -> None:
    runs = sorted(
        (
            make_run(NOON + timedelta(days=day, minutes=turn))
            for day in (-1, 0, 1, 400, 401)
            for turn in range(3)
        ),
        key=lambda run: run.run_id,
        reverse=True,
    )
    log.writer.put_runs(random.sample(runs, len(runs)))
    assert ids(log) == [run.run_id for run in runs]
    assert ids(log, date(2026, 8, 1), date(2026, 8, 2)) == [run.run_id for run in runs[6:12]]
    assert ids(log, date_from=date(2026, 8, 2)) == [run.run_id for run in runs[:9]]
    assert ids(log, date_to=date(2026, 7, 31)) == [run.run_id for run in runs[12:]]
    assert ids(log, date(2026, 8, 2), date(2026, 8, 1)) == []
    assert ids(log, date(2020, 1, 1), date(2026, 7, 30)) == []


def test_within_a_partition_ids_go_down(log: Runs) -> None:
    names = ["b", "a_c", "a-b", "aa", "a"]
    log.writer.put_runs([make_run(run_id=name) for name in names])
    assert ids(log) == sorted(names, reverse=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    days=st.sets(st.dates(), max_size=6),
    date_from=st.none() | st.dates(),
    date_to=st.none() | st.dates(),
)
def test_no_partition_is_passed_over_however_far_apart(
    days: set[date], date_from: date | None, date_to: date | None
) -> None:
    log = Runs(MemoryStore())
    log.writer.put_runs(
        [
            make_run(
                datetime(day.year, day.month, day.day, tzinfo=UTC), run_id=f"r{day:%d}-{day.isoformat()}"
            )
            for day in days
        ]
    )
    listed = [keys.partition_of(entry.key) for entry in log.reader.list_runs(date_from, date_to)]
    expected = [
        day.isoformat()
        for day in sorted(days, reverse=True)
        if (date_from or date.min) <= day <= (date_to or date.max)
    ]
    assert listed == expected


def test_a_list_is_read_as_it_is_walked() -> None:
    store = CountingStore()
    log = Runs(store)
    log.writer.put_runs([make_run(NOON + timedelta(days=day)) for day in range(30)])
    next(log.reader.list_runs())
    assert len(store.looked) == 1


def test_links_are_listed_like_runs(log: Runs) -> None:
    runs = [make_run(NOON + timedelta(days=day)) for day in range(3)]
    log.writer.put_runs(runs)
    links = [make_link(run) for run in reversed(runs)]
    for link in links:
        log.writer.attach(link)
    assert [entry.link for entry in log.reader.list_links()] == links
    assert [entry.link for entry in log.reader.list_links(date(2026, 8, 2), date(2026, 8, 2))] == links[1:2]
    assert len(ids(log)) == 3


def test_what_waits_for_a_person(log: Runs, root: Path) -> None:
    runs = [make_run(NOON + timedelta(days=day)) for day in range(5)]
    log.writer.put_runs(runs)
    unapproved: dict[str, Any] = {"approved": False, "reviewed_by": None}
    waiting, approved, rejected, unreadable = (
        make_link(runs[0], **unapproved),
        make_link(runs[1]),
        make_link(runs[2], **unapproved),
        make_link(runs[3], **unapproved),
    )
    for link in (waiting, approved, rejected, unreadable):
        log.writer.attach(link)
    log.writer.add_review(make_review(rejected, approved=False))
    # A verdict that cannot be read is none.
    log.writer.add_review(make_review(unreadable))
    (root / f"_reviews/2026-08-04/{unreadable.run_id}/foreign.json").write_bytes(b"{}")
    # Nor does a corrupt link stop the others.
    (root / f"2026-08-05/{runs[4].run_id}_advisory_x.json").write_bytes(b"")
    entries = list(log.reader.waiting_reviews())
    # Damage that may hide one is among them, by its name.
    assert [(entry.key, entry.advisory) for entry in entries if entry.advisory is None] == [
        (f"2026-08-05/{runs[4].run_id}_advisory_x.json", None)
    ]
    assert [entry.error.key for entry in entries if entry.error] == [
        f"2026-08-05/{runs[4].run_id}_advisory_x.json",
        f"_reviews/2026-08-04/{unreadable.run_id}/foreign.json",
    ]
    found = [entry.advisory for entry in entries if entry.advisory]
    assert [advisory.link for advisory in found] == [unreadable, waiting]
    assert all(advisory.needs_review for advisory in found)
    (only,) = log.reader.waiting_reviews(date_to=date(2026, 8, 1))
    assert only.advisory
    assert only.advisory.link == waiting


def test_a_list_goes_on_after_any_of_its_entries(log: Runs, root: Path) -> None:
    runs = [make_run(NOON + timedelta(days=day)) for day in (0, 0, 0, 2, 400)]
    log.writer.put_runs(runs)
    (root / "2026-08-02").mkdir(exist_ok=True)
    (root / f"2026-08-02/{make_run(NOON + timedelta(days=1)).run_id}.json").write_bytes(b"{}")
    whole = [entry.key for entry in log.reader.list_runs()]
    assert len(whole) == 6
    for number, key in enumerate(whole):
        assert [entry.key for entry in log.reader.list_runs(after=key)] == whole[number + 1 :]
    # A partition that could not be listed is an entry too.
    assert [entry.key for entry in log.reader.list_runs(after="2026-08-03")] == whole[2:]


# Damage

Spoil = Callable[[Path, RunArtifact], None]


def _write(content: Callable[[RunArtifact], bytes]) -> Spoil:
    def spoil(path: Path, run: RunArtifact) -> None:
        path.unlink()
        path.write_bytes(content(run))

    return spoil


def _link_elsewhere(path: Path, run: RunArtifact) -> None:
    path.unlink()
    (path.parents[2] / "elsewhere").write_bytes(run.to_bytes())
    path.symlink_to(path.parents[2] / "elsewhere")


def _changed(**fields: Any) -> Spoil:
    return _write(lambda run: json.dumps(run.dump() | fields).encode())


DAMAGE: dict[str, tuple[Spoil, str]] = {
    "empty": (_write(lambda _: b""), "empty"),
    "truncated": (_write(lambda run: run.to_bytes()[:-20]), "not JSON"),
    "not json": (_write(lambda _: b"SECRET"), "not JSON"),
    "not utf-8": (_write(lambda _: b'{"SECRET": "\xff"}'), "not JSON"),
    "utf-16": (_write(lambda run: run.to_bytes().decode().encode("utf-16")), "not JSON"),
    "nan": (_write(lambda run: run.to_bytes().replace(b"87.5", b"NaN")), "not JSON"),
    "nested": (_write(lambda _: b"[" * 100_000), "not JSON"),
    "huge integer": (_write(lambda _: b"1" * 5_000), "not JSON"),
    "foreign json": (_write(lambda _: b'{"hello": "SECRET"}'), "and"),
    "foreign list": (_write(lambda _: b'["SECRET"]'), "RunArtifact"),
    "surrogate name": (_changed(**{"\ud800": "SECRET"}), "unicode"),
    "forged line": (_changed(**{"x\nroot logged in": "SECRET"}), r"x\\nroot"),
    "unknown field": (_changed(extra="SECRET"), "extra"),
    "claims a schema": (_changed(schema_version="2"), "schema_version"),
    "another id": (_changed(run_id=new_uuid7(NOON)), "another name"),
    "another day": (_changed(created_at_utc="2026-08-02T00:00:00Z"), "UTC date"),
    "hash mismatch": (_changed(feasibility={"score": "SECRET"}), "hash of feasibility"),
    "symbolic link": (_link_elsewhere, "symbolic link"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_corrupt_is_not_missing_and_blocks_nothing_else(
    log: Runs, root: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    spoil, said = DAMAGE[kind]
    runs = [make_run(NOON + timedelta(minutes=minute)) for minute in range(3)]
    log.writer.put_runs(runs)
    key = f"2026-08-01/{runs[1].run_id}.json"
    spoil(root / key, runs[1])
    newest, damaged, oldest = log.reader.list_runs()
    assert (newest.artifact, oldest.artifact) == (runs[2], runs[0])
    assert (damaged.key, damaged.artifact) == (key, None)
    assert damaged.error is not None
    assert damaged.error.key == key
    assert events_in(caplog) == [FileCorrupt(file=key, reason=damaged.error.reason)]
    for verb in (log.reader.get_artifact, log.reader.get_bytes, log.reader.read):
        caplog.clear()
        with pytest.raises(CorruptArtifact, match=said) as caught:
            verb(runs[1].run_id)
        assert len(caplog.records) == 1
        assert caplog.records[0].levelno == logging.ERROR
        assert "SECRET" not in str(caught.value) + caplog.text
        str(caught.value).encode()


def test_a_problem_list_does_not_grow_with_the_file(log: Runs, root: Path) -> None:
    run = make_run()
    log.writer.put_run(run)
    _changed(**{f"field{number}": 1 for number in range(1_000)})(root / f"2026-08-01/{run.run_id}.json", run)
    with pytest.raises(CorruptArtifact, match="and 997 more") as caught:
        log.reader.get_artifact(run.run_id)
    assert len(str(caught.value)) < 600


def test_foreign_names_break_nothing(log: Runs, root: Path) -> None:
    run = make_run()
    log.writer.put_run(run)
    for name in (
        "0",
        "2026",
        "2026-08-01.bak/x.json",
        "2026-13-01/x.json",
        "20260801/x.json",
        "lost+found/x",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "2026-W31-6").mkdir()
    (root / "2026-07-30").mkdir()
    (root / "2026-08-01/README.txt").write_bytes(b"")
    (root / "2026-08-01/below").mkdir()
    (root / "2026-08-01/below/x.json").write_bytes(b"")
    foreign = ["zzz.json", "a b.json", "_x.json", ".x.json"]
    for name in foreign:
        (root / "2026-08-01" / name).write_bytes(b"{}")
    entries = list(log.reader.list_runs())
    assert [entry.artifact for entry in entries if entry.error is None] == [run]
    assert {entry.key for entry in entries if entry.error} == {f"2026-08-01/{name}" for name in foreign}
    assert list(log.reader.list_links()) == []
    assert log.reader.artifact_key("older") is None


def test_a_corrupt_link_is_reported_and_makes_no_shorter_list(log: Runs, root: Path) -> None:
    run, other = make_run(), make_run()
    log.writer.put_runs([run, other])
    log.writer.attach(make_link(run))
    log.writer.attach(make_link(other))
    key = f"2026-08-01/{run.run_id}_advisory_adv2.json"
    (root / key).write_bytes(make_link(run, "adv3").to_bytes())
    for verb in (log.reader.links, log.reader.read):
        with pytest.raises(CorruptArtifact, match="another name"):
            verb(run.run_id)
    assert len(log.reader.links(other.run_id)) == 1
    assert [entry.key for entry in log.reader.list_links() if entry.error] == [key]
    with pytest.raises(CorruptArtifact):
        log.writer.add_review(make_review(make_link(run, "adv2")))
    assert log.reader.get_artifact(run.run_id) == run


def test_a_planted_partition_is_reported_and_hides_no_other(
    log: Runs, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = make_run(NOON - timedelta(days=2), run_id="old")
    new = make_run(NOON + timedelta(days=2))
    log.writer.put_runs([old, new])
    (root / "2026-08-01").symlink_to("2026-07-30")
    entries = list(log.reader.list_runs())
    assert [(entry.key, entry.artifact) for entry in entries] == [
        (f"2026-08-03/{new.run_id}.json", new),
        ("2026-08-01", None),
        ("2026-07-30/old.json", old),
    ]
    (corrupt,) = events_in(caplog)
    assert isinstance(corrupt, FileCorrupt)
    assert corrupt.file == "2026-08-01"
    assert [entry.key for entry in log.reader.list_runs(date(2026, 8, 1), date(2026, 8, 1))] == ["2026-08-01"]
    # The walk for an older id goes past it, and says so when it finds the run nowhere else.
    assert log.reader.get_artifact("old") == old
    with pytest.raises(CorruptArtifact, match="2026-08-01"):
        log.reader.get_artifact("older")


def test_what_goes_while_it_is_read_is_damage() -> None:
    class Forgetful(MemoryStore):
        def get(self, key: str) -> bytes | None:
            assert key
            return None

    log = Runs(Forgetful())
    log.writer.put_run(make_run())
    (entry,) = log.reader.list_runs()
    assert entry.error is not None
    assert entry.error.reason == "it was listed and is gone"


def test_a_directory_in_the_place_of_a_file_is_corrupt_and_hides_nothing(root: Path, log: Runs) -> None:
    """F6: it was passed over, so the run was missing from lists, or read as one that nobody explained."""
    unreadable, unlinked, sound = (make_run() for _ in range(3))
    log.writer.put_runs([unreadable, unlinked, sound])
    for key in (keys.artifact_key(unreadable), keys.link_key(unlinked.date, unlinked.run_id, "adv1")):
        (root / key).unlink(missing_ok=True)
        (root / key).mkdir()
    listed = {entry.key: entry.error for entry in log.reader.list_runs()}
    assert {key for key, error in listed.items() if error} == {keys.artifact_key(unreadable)}
    assert len(listed) == 3
    assert [entry.error is not None for entry in log.reader.list_links()] == [True]
    for run in (unreadable, unlinked):
        with pytest.raises(CorruptArtifact, match="not a regular file"):
            log.reader.read(run.run_id)
    assert log.reader.read(sound.run_id).explanation_status is ExplanationStatus.NONE
