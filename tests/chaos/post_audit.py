"""The audit of posts: what the gateway answered, against what ledger and files hold under the same key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.job_seen import JobSeen
from chaos.post_journal import Answer, Post


@dataclass(frozen=True, slots=True)
class PostSeen:
    """All that there is of one key, whether anybody was told of it or not."""

    #: Those that make its runs.
    jobs: Sequence[JobSeen] = ()
    #: The run of each artifact.
    artifacts: Sequence[str] = ()
    links: int = 0
    assets: int = 0
    explanation_died: bool = False


def judge(post: Post, answers: Sequence[Answer], seen: PostSeen) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one key: ``lost``, ``doubled``, ``wrong`` or ``strange``, and in words."""
    for what, told in (*_doubled(answers, seen), *_lost(post, answers, seen), *_wrong(post, answers, seen)):
        yield what, f"{post.key}: {told}"


def _doubled(answers: Sequence[Answer], seen: PostSeen) -> Iterator[tuple[str, str]]:
    runs = sorted({answer.run_id for answer in answers})
    if len(runs) > 1:
        yield "doubled", f"answered as runs {', '.join(runs)}"
    if len(seen.jobs) > 1:
        yield "doubled", f"accepted as {len(seen.jobs)} jobs"
    if len(seen.artifacts) > 1:
        yield "doubled", f"{len(seen.artifacts)} artifacts"
    if seen.links > 1 or seen.assets > 1:
        yield "doubled", f"{seen.links} links, {seen.assets} assets"


def _lost(post: Post, answers: Sequence[Answer], seen: PostSeen) -> Iterator[tuple[str, str]]:
    known = {job.job_id for job in seen.jobs}
    for job_id in sorted({answer.job_id for answer in answers if answer.job_id} - known):
        yield "lost", f"its answer names job {job_id}, of which there is no record"
    if answers and not seen.jobs:
        yield "lost", "answered, and nothing was accepted"
    if not seen.artifacts:
        if any(job.state != "dead" for job in seen.jobs):
            yield "lost", "no artifact, and no dead letter of its creation"
    elif post.explain and not seen.links and not seen.explanation_died:
        yield "lost", "no link, and no dead letter of its explanation"


def _wrong(post: Post, answers: Sequence[Answer], seen: PostSeen) -> Iterator[tuple[str, str]]:
    told = {answer.run_id for answer in answers}
    made = {job.run_id for job in seen.jobs} | {*seen.artifacts}
    if told and made - told:
        yield "wrong", f"answered as run {', '.join(sorted(told))}, and made as {', '.join(sorted(made))}"
    if not post.explain and (seen.links or seen.assets):
        yield "strange", f"nobody asked for its {seen.links} links and {seen.assets} assets"
