"""How much is done: all of it, or as much as fits into two minutes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """The amounts of one run of the suite."""

    rounds: int
    #: Requests in one stream.
    accept_jobs: int
    #: Rounds of what starts workers.
    drains: int
    single_jobs: int
    bulk_jobs: int
    drain_seconds: float
    #: One backlog, and how long each turn with the audit log, or without, takes of it.
    sealing_jobs: int
    sealing_seconds: float
    advise_seconds: float
    advise_concurrency: tuple[int, ...]
    latency_seconds: float
    store_runs: tuple[int, ...]
    memory_single: int
    memory_bulk: int
    processes: tuple[int, ...]
    producers: tuple[int, ...]
    producer_seconds: float
    backlog: tuple[int, ...]
    #: Rows of the large index; partitions, and files that one is rebuilt from.
    index_runs: int
    index_days: int
    index_by_id_runs: int
    index_files: int
    #: Runs in the store that is verified against its audit log.
    audit_runs: int


FULL = Size(
    rounds=9,
    accept_jobs=3_000,
    drains=5,
    single_jobs=3_000,
    bulk_jobs=20_000,
    drain_seconds=5.0,
    sealing_jobs=40_000,
    sealing_seconds=2.0,
    advise_seconds=6.0,
    advise_concurrency=(1, 2, 4, 8, 16),
    latency_seconds=15.0,
    store_runs=(1_000, 10_000, 1_000_000),
    memory_single=10_000,
    memory_bulk=90_000,
    processes=(1, 2, 4),
    producers=(1, 10, 100),
    producer_seconds=5.0,
    backlog=(10_000, 100_000, 1_000_000),
    index_runs=1_000_000,
    index_days=3_650,
    index_by_id_runs=3_650,
    index_files=50_000,
    audit_runs=100_000,
)
QUICK = Size(
    rounds=3,
    accept_jobs=600,
    drains=2,
    single_jobs=600,
    bulk_jobs=3_000,
    drain_seconds=1.5,
    sealing_jobs=8_000,
    sealing_seconds=0.5,
    advise_seconds=2.0,
    advise_concurrency=(4,),
    latency_seconds=1.0,
    store_runs=(1_000, 10_000),
    memory_single=1_000,
    memory_bulk=4_000,
    processes=(),
    producers=(1,),
    producer_seconds=1.0,
    backlog=(4_000,),
    index_runs=50_000,
    index_days=365,
    index_by_id_runs=365,
    index_files=2_000,
    audit_runs=2_000,
)
