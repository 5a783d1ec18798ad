"""Blocking reads of the store, in few threads, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar, cast

from rmos_shared.errors import StoreUnavailable

Words = ParamSpec("Words")
Result = TypeVar("Result")
_END = object()


class Threads:
    """Runs blocking calls, ``most`` at one time; a call that hangs holds its thread, and no request."""

    def __init__(self, most: int, *, timeout_seconds: float) -> None:
        """Start with no thread; they come as they are needed, and stay."""
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="store")
        self._turns = asyncio.Semaphore(most)
        self._timeout_seconds = timeout_seconds

    async def run(self, call: Callable[Words, Result], *args: Words.args, **words: Words.kwargs) -> Result:
        """Return what a call returns, or raise what it raises.

        Raises:
            StoreUnavailable: not within the time-out, the wait for a thread included. What it does may be
                done all the same.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._turns.acquire()
                work = asyncio.get_running_loop().run_in_executor(
                    self._executor, partial(call, *args, **words)
                )
                work.add_done_callback(self._done)
                return await asyncio.shield(work)
        except TimeoutError:
            raise StoreUnavailable(
                f"the store did not answer within {self._timeout_seconds:g} s; see RMOS_RUNS_DIR and its disk"
            ) from None

    async def next_of(self, source: Iterator[Result]) -> Result | None:
        """Return the next of an iterator, or None at its end; each may be asked of another thread."""
        value = await self.run(next, cast("Iterator[object]", source), _END)
        return None if value is _END else cast("Result", value)

    def close(self) -> None:
        """Take no more calls; those under way end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _done(self, work: asyncio.Future[Result]) -> None:
        self._turns.release()
        if not work.cancelled():
            work.exception()  # seen, also when the caller has given up by now
