"""The caller of the gateway: each request has an Idempotency-Key of its own, and is repeated until answered.

``python -m chaos.posts JOURNAL POSTS START SECONDS``, at the gateway of ``CHAOS_GATEWAY_URL``; START is a
Unix time. It goes on from its journal when killed, and ends once every request is answered. The requests
name no run: only the key tells a repeat from another run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from chaos.load import hash_of, samples
from chaos.post_journal import Answer, Post, Posted, PostJournal, read_posts

_TICK_SECONDS = 0.5
#: Tries under way at one time.
_AT_ONCE = 16
#: After this without an answer one request is given up, and counts as unanswered.
_MOST_SECONDS = 180.0
_TRY_SECONDS = 5.0
_LAST_PAUSE_SECONDS = 1.0
#: How many of all requests are also sent by a second caller at the same time, again after an answer, with a
#: wait for the run, and with an explanation.
_TWINS, _AGAIN, _WAITING, _EXPLAINED = 0.3, 0.3, 0.2, 0.75
#: Answers that say to come again, besides all from 500 on.
_PASSING = frozenset({408, 429})


class Caller:
    """Posts what is due, and repeats what is not answered; a request's key decides how it is sent."""

    def __init__(self, client: httpx.AsyncClient, journal: PostJournal, told: Posted) -> None:
        self._client = client
        self._journal = journal
        self._samples = samples()
        self._open = told.open
        self._made = len(told.posts)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self, posts: int, start: float, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for post in self._open:
                group.create_task(self._deliver(post))
            while self._made < posts:
                due = min(posts, int(posts * (time.time() - start) / seconds)) - self._made
                for post in self._intend(due):
                    group.create_task(self._deliver(post))
                await asyncio.sleep(_TICK_SECONDS)
        self._journal.finish()

    def _intend(self, count: int) -> list[Post]:
        batch = []
        for index in range(self._made, self._made + count):
            sample = index % len(self._samples)
            key = f"http-{secrets.token_hex(12)}"
            explain = random.Random(key).random() < _EXPLAINED  # noqa: S311 - repeatable, no secret
            batch.append(Post(key, sample, hash_of(self._samples[sample]), explain))
        if batch:
            self._journal.post(batch)
            self._made += count
        return batch

    async def _deliver(self, post: Post) -> None:
        rng = random.Random(f"{post.key} callers")  # noqa: S311 - repeatable, no secret
        twins = 1 + (rng.random() < _TWINS)
        await asyncio.gather(*(self._until_answered(post, rng) for _ in range(twins)))
        if rng.random() < _AGAIN:
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            await self._until_answered(post, rng)

    async def _until_answered(self, post: Post, rng: random.Random) -> None:
        wait = rng.random() < _WAITING
        deadline, pause = time.monotonic() + _MOST_SECONDS, 0.05
        while not await self._try(post, wait=wait) and time.monotonic() < deadline:
            await asyncio.sleep(pause * rng.uniform(0.5, 1.0))
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _try(self, post: Post, *, wait: bool) -> bool:
        """Send it once. Returns whether there is nothing to repeat."""
        request = {**self._samples[post.sample], "request_id": post.key}
        headers = {"Idempotency-Key": post.key, "Content-Type": "application/json"}
        async with self._turns:
            began = time.monotonic()
            try:
                told = await self._client.post(
                    "/api/rmos/runs",
                    params={"explain": "summary" if post.explain else "none"},
                    content=json.dumps(request),
                    headers={**headers, "Prefer": "wait=1"} if wait else headers,
                )
            except httpx.TransportError as error:
                self._journal.fail(post.key, type(error).__name__, began)
                return False
        return self._take(post, told, began)

    def _take(self, post: Post, told: httpx.Response, began: float) -> bool:
        body: dict[str, Any] = told.json()
        # A job that died while its caller waited was accepted before.
        if told.is_success or body.get("error") == "JOB_DEAD":
            answer = Answer(body["run_id"], body.get("job_id"), body.get("repeat"), began, time.monotonic())
            self._journal.answer(post.key, answer)
            return True
        why = f"{told.status_code} {body.get('error')}"
        if told.status_code in _PASSING or told.is_server_error:
            self._journal.fail(post.key, why, began)
            return False
        self._journal.refuse(post.key, why)
        return True


async def call(path: Path, posts: int, start: float, seconds: float) -> None:
    told = read_posts(path)
    url = os.environ["CHAOS_GATEWAY_URL"]
    with PostJournal(path) as journal:
        async with httpx.AsyncClient(base_url=url, timeout=_TRY_SECONDS, trust_env=False) as client:
            await Caller(client, journal, told).run(posts, start, seconds)


if __name__ == "__main__":
    _path, _posts, _start, _seconds = sys.argv[1:]
    asyncio.run(call(Path(_path), int(_posts), float(_start), float(_seconds)))
