"""What was posted to the gateway and what it answered, on disk before and after."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.journal import Journal, entries


@dataclass(frozen=True, slots=True)
class Post:
    """One request that is to become one run, however often it is sent."""

    #: Its Idempotency-Key, and its request id, by which its runs are found.
    key: str
    #: Which of the sample requests it is.
    sample: int
    feasibility_sha256: str
    explain: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that says that the request is accepted; times are of the monotonic clock."""

    run_id: str
    #: None where the answer is the run itself.
    job_id: str | None
    #: Whether the gateway had accepted the key before; None where the answer is the run itself.
    repeat: bool | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Failure:
    """One try without an answer, or with one that says to try again."""

    why: str
    began: float
    ended: float


@dataclass(slots=True)
class Posted:
    """What a journal holds."""

    posts: dict[str, Post] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    #: Requests that were answered as if they were wrong, and how.
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[Post]:
        """Posts that nothing has answered."""
        ended = self.answers.keys() | self.refusals.keys()
        return [post for key, post in self.posts.items() if key not in ended]

    @property
    def late(self) -> int:
        """How many were accepted by a try whose answer nobody saw: all that answered say "again"."""
        return sum(all(answer.repeat for answer in told) for told in self.answers.values())

    def failed(self) -> Counter[str]:
        """Return the number of failed tries by what became of them."""
        return Counter(failure.why for told in self.failures.values() for failure in told)

    def failed_over(self, at: float) -> int:
        """Return how many tries were under way at a time, and failed."""
        return sum(failure.began < at < failure.ended for told in self.failures.values() for failure in told)

    def answered_after(self, at: float) -> float | None:
        """Return the seconds from a time to the next answer to a try that began after it."""
        ended = [answer.ended for told in self.answers.values() for answer in told if answer.began >= at]
        return min(ended) - at if ended else None


class PostJournal(Journal):
    """Appends lines. What was posted and answered is on disk before the method returns."""

    def post(self, batch: list[Post]) -> None:
        self._write(
            {
                "post": post.key,
                "sample": post.sample,
                "sha256": post.feasibility_sha256,
                "explain": post.explain,
            }
            for post in batch
        )

    def answer(self, key: str, answer: Answer) -> None:
        self._write(
            [
                {
                    "answer": key,
                    "run_id": answer.run_id,
                    "job_id": answer.job_id,
                    "repeat": answer.repeat,
                    "began": answer.began,
                    "ended": answer.ended,
                }
            ]
        )

    def fail(self, key: str, why: str, began: float) -> None:
        """Note a try that failed just now."""
        self._write([{"failure": key, "why": why, "began": began, "ended": time.monotonic()}], sync=False)

    def refuse(self, key: str, why: str) -> None:
        self._write([{"refusal": key, "why": why}])


def read_posts(path: Path) -> Posted:
    told = Posted()
    for entry in entries(path):
        match entry:
            case {"post": key}:
                told.posts[key] = Post(key, entry["sample"], entry["sha256"], entry["explain"])
            case {"answer": key}:
                words = (entry[name] for name in ("run_id", "job_id", "repeat", "began", "ended"))
                told.answers.setdefault(key, []).append(Answer(*words))
            case {"failure": key}:
                told.failures.setdefault(key, []).append(
                    Failure(entry["why"], entry["began"], entry["ended"])
                )
            case {"refusal": key}:
                told.refusals[key] = entry["why"]
    return told
