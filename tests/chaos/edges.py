"""Faults at the edges: the home, the mount, Celery's channels, the ledger's keys, jobs of other versions."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from chaos import damage
from chaos.census import kill
from chaos.garbage import CONTROL, EVENTS, shapes
from chaos.journal import Sent
from chaos.later import STATES
from chaos.load import hash_of, samples
from chaos.system import System
from rmos_runs.client import RunsClient
from rmos_shared.ids import new_uuid7
from rmos_shared.settings.producer import ProducerSettings

HOMES = ("kill_supervisor", "second_up")
MOUNTS = ("mount_away", "mount_other", "mount_away_at_start")
CHANNELS = ("control_garbage", "event_garbage")
DAMAGE = (*(f"damage_{name}" for name in damage.KEYS), "damage_payload", "damage_record")
LATER_JOBS = tuple(f"later_{state}" for state in STATES)
EDGES = ("homes", "mounts", "channels", "damage", "later")

#: A second ``rmos up`` that has neither ended nor been announced by then hangs.
_SECOND_SECONDS = 20.0
#: How long a fault of homes waits for the one before to be over.
_UP_SECONDS = 20.0
#: How long garbage waits for somebody who listens.
_LISTENING_SECONDS = 8.0
#: How long a fault that needs the ledger whole waits for it.
_WHOLE_SECONDS = 15.0


@dataclass(slots=True)
class Sacrifice:
    """A job of the harness's own whose record or payload is damaged for a while."""

    sent: Sent
    #: Empty while nobody has confirmed it.
    job_id: str = ""


@dataclass(slots=True)
class LaterJob:
    """A job of a task that the version under test does not know."""

    job_id: str
    state: str
    #: Where a later version brought it in the end.
    ended: str = ""


@dataclass(slots=True)
class Tally:
    """What of it has to be found again."""

    sacrifices: list[Sacrifice] = field(default_factory=list)
    later: list[LaterJob] = field(default_factory=list)
    garbage: Counter[str] = field(default_factory=Counter)


class Edges:
    """Carries them out; each returns what it did in words, or None if it found nothing to hit."""

    def __init__(self, system: System, rng: random.Random, ended: Callable[[str, float], None]) -> None:
        """``ended`` is told when a fault that lasts is over: what is finished from then on is recovery."""
        self._system = system
        self._rng = rng
        self._ended = ended
        self.tally = Tally()
        self._damaged: list[damage.Damage] = []
        self._mount_back_at: float | None = None
        self._samples = samples()

    def __getattr__(self, kind: str) -> Callable[[], str | None]:
        family, _, name = kind.partition("_")
        if family == "damage" and name in damage.KEYS:
            return lambda: self._damage_key(name)
        if family == "later" and name in STATES:
            return lambda: self._later(name)
        raise AttributeError(kind)

    def tick(self) -> None:
        """End what was to last only for a while."""
        now = time.monotonic()
        if self._mount_back_at is not None and now > self._mount_back_at:
            self._mount_back_at = None
            self._system.mount.come_back()
            self._ended("mount_back", time.monotonic())
        for harm in [harm for harm in self._damaged if now > harm.until]:
            self._restore(harm)

    def heal(self) -> None:
        """End everything that lasts, now or as soon as the broker is there."""
        if self._mount_back_at is not None:
            self._mount_back_at = 0.0
        self._damaged = [damage.Damage(harm.name, harm.key, 0.0, harm.job_id) for harm in self._damaged]
        self.tick()

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is, while what lasts ends and what ended starts again. Returns whether it is."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                return False
            self.tick()
            self._system.tend()
            time.sleep(0.05)
        return True

    @property
    def lasting(self) -> bool:
        """Whether something is damaged or away yet."""
        return bool(self._damaged) or self._mount_back_at is not None

    # -- the home ---------------------------------------------------------------------------------

    def kill_supervisor(self) -> str | None:
        if not self.wait_for(lambda: self._system.is_up, _UP_SECONDS):
            return None
        self._system.kill_supervisor(away=self._rng.uniform(0.0, 3.0))
        return "rmos up"

    def second_up(self) -> str | None:
        system = self._system
        if not self.wait_for(lambda: system.is_up, _UP_SECONDS):
            return None
        second = subprocess.Popen(
            [str(system.command), "up", "--home", str(system.home)],
            env=system.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + _SECOND_SECONDS
        while second.poll() is None and time.monotonic() < deadline:
            if system.addresses.supervisor == second.pid:
                system.breach("a second rmos up on the same home announced itself")
                break
            system.watch()
            time.sleep(0.05)
        else:
            if second.poll() is None:
                system.breach(f"a second rmos up on the same home runs on after {_SECOND_SECONDS:g} s")
        if second.poll() is None:
            system.doom_all(but=system.up.pid)
            second.terminate()
        try:
            told, _ = second.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            kill(second.pid)
            told, _ = second.communicate(timeout=10)
        if second.returncode == 0 or "Traceback" in told:
            system.breach(f"a second rmos up ended with {second.returncode}: {told.splitlines()[-1:]}")
        return f"ended with {second.returncode}"

    # -- the mount --------------------------------------------------------------------------------

    def mount_away(self) -> str | None:
        return self._mount(self._system.mount.leave, "unmounted")

    def mount_other(self) -> str | None:
        return self._mount(self._system.mount.mistake, "another disk mounted")

    def mount_away_at_start(self) -> str | None:
        """A machine that starts the pipeline before it has mounted its disks."""
        if not self.wait_for(lambda: self._system.is_up, _UP_SECONDS):
            return None
        told = self._mount(self._system.mount.leave, "unmounted")
        if told is not None:
            self._system.kill_supervisor(away=0.0, without_mount=True)
            self._mount_back_at = time.monotonic() + 8.0
        return told

    def _mount(self, change: Callable[[], None], told: str) -> str | None:
        if self._system.mount.refused:
            return None
        # The fault before is to be over.
        self.wait_for(lambda: self._mount_back_at is None, _UP_SECONDS)
        change()
        self._mount_back_at = time.monotonic() + self._rng.uniform(2.0, 5.0)
        return told

    # -- Celery's channels ------------------------------------------------------------------------

    def control_garbage(self) -> str | None:
        return self._publish([CONTROL])

    def event_garbage(self) -> str | None:
        return self._publish(EVENTS)

    def _publish(self, channels: tuple[str, ...] | list[str]) -> str | None:
        heard = 0
        with self._system.direct() as client:
            self.wait_for(lambda: client.pubsub_numpat() > 0, _LISTENING_SECONDS)
            for shape in self._rng.sample(shapes(self._rng), 6):
                channel = self._rng.choice(channels)
                heard += bool(client.publish(channel, shape))
                self.tally.garbage[channel] += 1
        return f"{heard} of 6 heard" if heard else None

    # -- the ledger's keys ------------------------------------------------------------------------

    def _damage_key(self, name: str) -> str | None:
        queue = damage.queue_for(name, self._rng.getrandbits(8))
        until = time.monotonic() + self._rng.uniform(1.0, 4.0)
        harm = damage.Damage(name, damage.key_of(name, queue), until)
        with self._system.direct() as client:
            return self._harm(client, harm)

    def damage_payload(self) -> str | None:
        return self._damage_job("payload", "rmos:payload:{}")

    def damage_record(self) -> str | None:
        return self._damage_job("record", "rmos:job:{}")

    def _damage_job(self, name: str, key: str) -> str | None:
        if not self._await_whole():
            return None
        number = self._rng.randrange(len(self._samples))
        request = self._samples[number]
        sent = Sent(new_uuid7(), number, hash_of(request))
        settings = ProducerSettings.load(broker_url=self._system.addresses.broker_url)
        sacrifice = Sacrifice(sent)
        self.tally.sacrifices.append(sacrifice)
        with RunsClient.connect(settings) as client, self._system.direct() as direct:
            receipt = client.create_run({**request, "run_id": sent.run_id}, explain=True)
            sacrifice.job_id = receipt.job_id
            # At once; a worker that was quicker has done it, and it is harmed for nothing.
            until = time.monotonic() + self._rng.uniform(2.0, 5.0)
            return self._harm(direct, damage.Damage(name, key.format(receipt.job_id), until, receipt.job_id))

    def _harm(self, client: redis.Redis, harm: damage.Damage) -> str | None:
        if any(harm.key == other.key for other in self._damaged):
            return None
        # Known before it is done, so that it is undone even if its answer is lost.
        self._damaged.append(harm)
        damage.plant(client, harm)
        # Whoever looks at a damaged ledger is told so, and shown no traceback.
        self._system.rmos("doctor")
        return harm.key

    def _restore(self, harm: damage.Damage) -> None:
        try:
            with self._system.direct() as client:
                if not damage.restore(client, harm):
                    self._system.findings.append(f"{harm.key} was of a wrong type, and somebody replaced it")
                if harm.job_id:
                    damage.drop_payload(client, harm.job_id)
        except (OSError, redis.RedisError):
            return  # the broker is away; at the next tick
        self._damaged.remove(harm)
        self._ended("damage_restored", time.monotonic())

    # -- other versions ---------------------------------------------------------------------------

    def _await_whole(self) -> bool:
        """Wait until the broker answers and no key of its own is damaged. Returns whether that came."""
        return self.wait_for(lambda: not self._damaged and self._system.broker_answers(), _WHOLE_SECONDS)

    def _later(self, state: str) -> str | None:
        if not self._await_whole():
            return None
        told = self._system.later("plant", state)
        if told is None:
            return None
        job = LaterJob(told.strip(), state)
        self.tally.later.append(job)
        # What an operator would try. None of it may lose the job or move it anywhere.
        self._system.rmos("jobs", "show", job.job_id)
        self._system.rmos("jobs", "repair", job.job_id)
        if state == "dead":
            self._system.rmos("dlq", "replay", job.job_id)
        self._check_later(job)
        return f"{job.job_id} {state}"

    def check_later(self) -> None:
        """Have the doctor name each of these jobs, and see that all of them are where they were."""
        if not self.tally.later:
            return
        told = self._system.rmos("doctor", "--json").stdout
        for job in self.tally.later:
            self._check_later(job)
            if job.job_id not in told:
                self._system.breach(f"doctor does not name job {job.job_id}, {job.state}, of an unknown task")

    def finish_later(self) -> None:
        """Let the version that knows them work them off."""
        if not self.tally.later:
            return
        told = self._system.later("finish", *(job.job_id for job in self.tally.later)) or ""
        ended = dict(line.split() for line in told.splitlines())
        for job in self.tally.later:
            job.ended = ended.get(job.job_id, "unknown")
            if job.ended != "done":
                self._system.breach(
                    f"job {job.job_id} of an unknown task, once {job.state}, is {job.ended} at the end"
                )

    def replay_sacrifices(self) -> int:
        """Replay those that died of the damage, now that it is undone. Returns how many."""
        with self._system.direct() as client:
            dead = [
                sacrifice.job_id
                for sacrifice in self.tally.sacrifices
                if client.hget(f"rmos:job:{sacrifice.job_id}", "state") == b"dead"
            ]
        if dead:
            self._system.rmos("dlq", "replay", *dead, "--why", "its damage is undone")
        return len(dead)

    @property
    def later_pending(self) -> int:
        """How many of the jobs of an unknown task count as pending."""
        return sum(job.state != "dead" and not job.ended for job in self.tally.later)

    def _check_later(self, job: LaterJob) -> None:
        with self._system.direct() as client:
            state = client.hget(f"rmos:job:{job.job_id}", "state")
            indexes = {
                # Set aside by whoever takes from the queue and does not know the task.
                "accepted": ("rmos:ready:runs.create", "rmos:taken"),
                "waiting": ("rmos:waiting",),
                "running": (f"rmos:leases:later:{job.job_id}",),
                "dead": ("rmos:dead",),
            }
            if state != job.state.encode():
                self._system.breach(f"job {job.job_id} of an unknown task was {job.state} and is {state!r}")
            elif all(
                client.type(index) in {b"zset", b"none"} and client.zscore(index, job.job_id) is None
                for index in indexes[job.state]
            ):
                self._system.breach(f"job {job.job_id} of an unknown task is {job.state} and in no index")
