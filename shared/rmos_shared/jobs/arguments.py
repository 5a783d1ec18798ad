"""The arguments of the script's operations, as its Lua takes them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from rmos_shared.canonical import sha256_hex
from rmos_shared.jobs.model import Job, OnceJob
from rmos_shared.store.publication import Publication

CODE_VERSION = metadata.version("rmos-runs")


def accept_args(jobs: Sequence[Job]) -> list[Any]:
    """Return the arguments of the operation ``accept``."""
    args: list[Any] = [len(jobs)]
    for job in jobs:
        args += job_args(job)
    return args


def accept_once_args(items: Sequence[OnceJob], ttl_seconds: int) -> list[Any]:
    """Return the arguments of the operation ``accept_once``."""
    args: list[Any] = [ttl_seconds, len(items)]
    for item in items:
        args += (item.digest, item.body_sha256, item.receipt, *job_args(item.job))
    return args


def job_args(job: Job) -> tuple[str | bytes, ...]:
    """Return the arguments that bring one job in, in the order in which ``accept_one`` takes them."""
    payload = job.payload.encode()
    sha256 = sha256_hex(payload)
    about = (job.run_id, job.request_id or "", job.traceparent or "", job.batch_id or "")
    return job.job_id, job.task, payload, sha256, *about


def publication_args(published: Sequence[Publication]) -> tuple[str, int]:
    """Return the arguments that tell of publications: JSON lists with commas between, and how many."""
    # Written by hand, for it is in the way of every job; none of the four needs an escape.
    lists = (
        f'["{item.key}","{item.sha256}",{item.size_bytes},"{"c" if item.created else "s"}"]'
        for item in published
    )
    return ",".join(lists), len(published)


def milliseconds(seconds: float) -> int:
    """Return a time as the script counts it."""
    return int(seconds * 1000)
