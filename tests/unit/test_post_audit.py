"""The chaos harness's own judgement of what was posted: it must see each way in which a key can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.job_seen import JobSeen
from chaos.post_audit import PostSeen, judge
from chaos.post_journal import Answer, Failure, Post, Posted, PostJournal, read_posts

POST = Post("key-1", 0, "0" * 64, explain=True)
ANSWER = Answer("run-1", "job-1", repeat=False, began=1.0, ended=2.0)
AGAIN = Answer("run-1", "job-1", repeat=True, began=3.0, ended=4.0)
#: As the answer to a caller that waits for the run.
THE_RUN = Answer("run-1", None, None, began=3.0, ended=4.0)


def job(job_id: str = "job-1", run_id: str = "run-1", state: str = "done") -> JobSeen:
    return JobSeen(job_id, "runs.create", run_id, POST.key, state, 0.1, "")


GOOD = PostSeen([job()], ["run-1"], links=1, assets=1)


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ([ANSWER, AGAIN, THE_RUN], GOOD),
        ([THE_RUN], GOOD),
        # Nobody was told; it is made all the same, or not at all.
        ([], GOOD),
        ([], PostSeen()),
        ([ANSWER], PostSeen([job(state="dead")])),
        ([ANSWER], PostSeen([job()], ["run-1"], explanation_died=True)),
    ],
)
def test_a_key_with_one_run_is_well(answers: list[Answer], seen: PostSeen) -> None:
    assert [*judge(POST, answers, seen)] == []


@pytest.mark.parametrize(
    ("what", "words", "answers", "seen"),
    [
        ("doubled", "answered as runs run-1, run-2", [ANSWER, Answer("run-2", None, None, 3.0, 4.0)], GOOD),
        ("doubled", "accepted as 2 jobs", [ANSWER], PostSeen([job(), job("job-2")], ["run-1"], 1, 1)),
        (
            "doubled",
            "accepted as 2 jobs",
            [],
            PostSeen([job(), job("job-2", "run-2", "dead")], ["run-1"], 1, 1),
        ),
        ("doubled", "2 artifacts", [ANSWER], PostSeen([job()], ["run-1", "run-1"], 1, 1)),
        ("doubled", "2 links, 2 assets", [ANSWER], PostSeen([job()], ["run-1"], 2, 2)),
        ("lost", "names job job-1", [ANSWER], PostSeen()),
        ("lost", "nothing was accepted", [THE_RUN], PostSeen()),
        ("lost", "no artifact", [ANSWER], PostSeen([job()])),
        ("lost", "no artifact", [], PostSeen([job()])),
        ("lost", "no link", [ANSWER], PostSeen([job()], ["run-1"])),
        ("wrong", "answered as run run-1, and made as run-2", [THE_RUN], PostSeen([job("job-2", "run-2")])),
    ],
)
def test_each_way_in_which_a_key_fails_is_seen(
    what: str, words: str, answers: list[Answer], seen: PostSeen
) -> None:
    assert any(kind == what and words in told for kind, told in judge(POST, answers, seen))


def test_an_explanation_that_nobody_asked_for_is_strange() -> None:
    post = Post("key-1", 0, "0" * 64, explain=False)
    assert [kind for kind, _ in judge(post, [ANSWER], GOOD)] == ["strange"]


def test_a_journal_tells_what_was_answered_late_failed_and_refused(tmp_path: Path) -> None:
    file = tmp_path / "posts.ndjson"
    posts = [Post(f"key-{number}", number, "0" * 64, explain=True) for number in range(4)]
    with PostJournal(file) as journal:
        journal.post(posts)
        journal.answer("key-0", ANSWER)
        journal.answer("key-0", AGAIN)
        journal.answer("key-1", AGAIN)
        journal.fail("key-1", "ReadError", 1.5)
        journal.refuse("key-2", "422 IDEMPOTENCY_MISMATCH")
        journal.finish()
    with file.open("ab") as torn:
        torn.write(b'{"answer": "key-3", "run')
    told = read_posts(file)
    assert told.open == posts[3:]
    assert told.late == 1
    assert told.failed() == {"ReadError": 1}
    assert told.refusals == {"key-2": "422 IDEMPOTENCY_MISMATCH"}
    assert told.answered_after(1.5) == 2.5


def test_a_try_counts_as_hit_by_what_fell_while_it_was_under_way() -> None:
    told = Posted(failures={"key-1": [Failure("ReadError", 1.0, 2.0), Failure("ReadError", 3.0, 4.0)]})
    assert [told.failed_over(at) for at in (0.5, 1.5, 2.5, 3.5)] == [0, 1, 0, 1]
