"""A process whose clock is wrong by ``SHIFT_CLOCK_SECONDS``; without that variable nothing is touched.

Python imports this by its name before anything else, wherever this directory is on the path. Only the time of
day is shifted: the monotonic clock, by which everybody waits, is right on a machine whose date is wrong.
"""

from __future__ import annotations

import copyreg
import datetime as dt
import os
import time
from typing import Any

_right = dt.datetime


class _Kind(type):
    """Right and shifted times are of one kind, whoever made them."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _right)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _right)


def restored(*fields: Any) -> dt.datetime:
    return _right(*fields)


def _reduced(moment: dt.datetime) -> tuple[Any, ...]:
    when = (moment.hour, moment.minute, moment.second, moment.microsecond, moment.tzinfo)
    return restored, (moment.year, moment.month, moment.day, *when)


def _shift(seconds: float) -> None:
    right_time, right_time_ns = time.time, time.time_ns
    off = dt.timedelta(seconds=seconds)

    class _Shifted(_right, metaclass=_Kind):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return _right.now(tz) + off

        @classmethod
        def utcnow(cls) -> Any:
            return _right.now(dt.UTC).replace(tzinfo=None) + off

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    for kind in (_right, _Shifted):
        # By its fields: pickle would look for the class under its name, and find another.
        copyreg.pickle(kind, _reduced)
    time.time = lambda: right_time() + seconds
    time.time_ns = lambda: right_time_ns() + int(seconds * 1_000_000_000)
    dt.datetime = _Shifted  # type: ignore[misc]


if "SHIFT_CLOCK_SECONDS" in os.environ:
    _shift(float(os.environ["SHIFT_CLOCK_SECONDS"]))
