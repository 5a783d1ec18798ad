"""Many runs in one request: lines in, a line of result each, in order, while the rest still comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect

from rmos_runs.gateway.accepting import Intake, told
from rmos_runs.gateway.body import decode
from rmos_runs.gateway.errors import BodyTooLarge
from rmos_runs.gateway.problems import body_of
from rmos_runs.receipt import Prepared
from rmos_shared.errors import InvalidRequest, RmosError
from rmos_shared.models.base import Frozen

#: Payloads of one step, so that neither side holds a hundred of the largest at once.
_STEP_BYTES = 16 << 20
_END = b""


@dataclass(slots=True)
class Line:
    """One line: what it asks for, or what is wrong with it."""

    number: int
    asked: Any = None
    prepared: Prepared | None = None
    error: RmosError | None = None

    @property
    def size(self) -> int:
        """Bytes of what is accepted for it."""
        return 0 if self.prepared is None else len(self.prepared.job.payload)


class Lines:
    """Cuts what comes into lines; of one that is too long the rest is passed by."""

    def __init__(self, longest: int) -> None:
        """Start with nothing."""
        self._longest = longest
        self._rest = bytearray()
        self._passing_by = False
        self.number = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes | None]]:
        """Return the lines that are whole by now, with their numbers; None for one that is too long."""
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        lines = [self._line(bytes(line)) for line in whole]
        if len(self._rest) > self._longest:
            self._passing_by = True
            self._rest.clear()
        return lines

    def end(self) -> list[tuple[int, bytes | None]]:
        """Return the last line, if it lacked its end."""
        return [self._line(bytes(self._rest))] if self._rest or self._passing_by else []

    def _line(self, line: bytes) -> tuple[int, bytes | None]:
        self.number += 1
        too_long = self._passing_by or len(line) > self._longest
        self._passing_by = False
        return self.number, None if too_long else line


@dataclass(slots=True)
class Bulk:
    """Reads lines, has their jobs accepted in groups, and tells what became of each.

    Reading does not wait for the reader of the results: a client may send everything before it reads. Memory
    holds one group of lines, and the results that are not read, of which ``most_lines`` is the bound.
    """

    intake: Intake
    chunks: AsyncIterator[bytes]
    prepare: Any
    longest_line_bytes: int
    most_bytes: int
    most_lines: int
    most_jobs: int
    _results: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def results(self) -> AsyncIterator[bytes]:
        """Yield the lines of the answer."""
        reading = asyncio.create_task(self._read_all())
        try:
            while (result := await self._results.get()) != _END:
                yield result
        finally:
            reading.cancel()

    async def _read_all(self) -> None:
        lines = Lines(self.longest_line_bytes)
        try:
            await self._read(lines)
        except ClientDisconnect:
            pass  # nobody is there to read a result
        except RmosError as error:
            # What follows is not read; the number tells where to go on.
            self._tell(lines.number + 1, error.http_status, body_of(error) | {"stopped": True})
        finally:
            self._results.put_nowait(_END)

    async def _read(self, lines: Lines) -> None:
        size = 0
        async for chunk in self.chunks:
            size += len(chunk)
            if size > self.most_bytes:
                raise BodyTooLarge(f"the body is larger than {self.most_bytes} bytes")
            await self._take(lines.feed(chunk))
        await self._take(lines.end())

    async def _take(self, lines: list[tuple[int, bytes | None]]) -> None:
        group: list[Line] = []
        size = 0
        for number, text in lines:
            if number > self.most_lines:
                await self._accept(group)
                raise BodyTooLarge(f"the body has more than {self.most_lines} lines")
            if text is not None and not text.strip():
                continue
            group.append(self._line(number, text))
            size += group[-1].size
            if len(group) >= self.most_jobs or size > _STEP_BYTES:
                await self._accept(group)
                group, size = [], 0
        await self._accept(group)

    def _line(self, number: int, text: bytes | None) -> Line:
        if text is None:
            error = BodyTooLarge(f"the line is longer than {self.longest_line_bytes} bytes")
            return Line(number, error=error)
        try:
            asked = decode(text, what="line")
            return Line(number, asked, self.prepare(asked))
        except InvalidRequest as invalid:
            return Line(number, error=invalid)

    async def _accept(self, group: list[Line]) -> None:
        good = [(line, line.prepared) for line in group if line.prepared is not None]
        outcomes: dict[int, Frozen | RmosError] = {}
        failure: RmosError | None = None
        if good:
            try:
                outcomes = await self._accept_good(good)
            except RmosError as error:
                failure = error
        for line in group:
            outcome = line.error or outcomes.get(line.number) or failure
            if isinstance(outcome, RmosError):
                self._tell(line.number, outcome.http_status, body_of(outcome))
            elif outcome is not None:
                self._tell(line.number, HTTPStatus.ACCEPTED, outcome.dump())
        if failure is not None:
            raise failure

    async def _accept_good(self, good: list[tuple[Line, Prepared]]) -> dict[int, Frozen | RmosError]:
        numbers = [line.number for line, _ in good]
        if self.intake.key is None:
            services = self.intake.services
            acceptances = await services.ledger.accept(
                [prepared.job for _, prepared in good], disk_seconds=services.disk_seconds
            )
            return {
                line.number: told(prepared, acceptance)
                for (line, prepared), acceptance in zip(good, acceptances, strict=True)
            }
        # A key of its own for each line; no header can hold a NUL, so none is that of another request.
        items = [(f"{self.intake.key}\0{line.number}", prepared, line.asked) for line, prepared in good]
        return dict(zip(numbers, await self.intake.accept_each(items), strict=True))

    def _tell(self, number: int, status: int, fields: dict[str, Any]) -> None:
        result = {"line": number, "status": int(status), **fields}
        self._results.put_nowait(json.dumps(result, ensure_ascii=False).encode() + b"\n")
