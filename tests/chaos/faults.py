"""What goes wrong and when: a schedule fixed by its seed, and the hands that carry it out."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle

import redis

from chaos.census import SERVER, WORKERS, kill
from chaos.edges import CHANNELS, DAMAGE, EDGES, HOMES, LATER_JOBS, MOUNTS, Edges
from chaos.gateway import GATEWAYS, GatewayFaults
from chaos.journal import read_journal
from chaos.moment import await_intent
from chaos.options import Options
from chaos.system import System
from rmos_shared.errors import RmosError
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.tasks.table import QUEUES
from support.malformed import KINDS, make, notification_of

KILLS = (
    "kill_child",
    "kill_worker",
    "kill_all_workers",
    "kill_after_malformed",
    "kill_producer",
    "kill_advisory_store",
    "kill_server",
    "kill_flower",
    "kill_beat",
    "deploy_sigterm",
    "deploy_sigquit",
)
CUTS = (
    "broker_cut",
    "broker_cut_before_answer",
    "broker_cut_before_settlement",
    "broker_cut_before_malformed",
    "broker_pause",
    "broker_freeze",
    "broker_slow",
    "broker_refuse",
    "broker_refuse_after_malformed",
    "client_kill",
    "store_cut",
    "store_cut_before_answer",
    "store_pause",
    "store_slow",
    "store_refuse",
)
TROUBLES = ("lost_notifications", "store_errors", "store_429", "store_latency", "store_drops")
MALFORMED = tuple(f"malformed:{kind}" for kind in KINDS)
#: Every kind of fault there is, by family.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "kills": KILLS,
    "cuts": CUTS,
    "troubles": TROUBLES,
    "homes": HOMES,
    "mounts": MOUNTS,
    "channels": CHANNELS,
    "damage": DAMAGE,
    "later": LATER_JOBS,
    "gateway": GATEWAYS,
    "malformed": MALFORMED,
}
FAMILY_OF = {kind: family for family, kinds in FAMILIES.items() for kind in kinds}
_CALM_SECONDS = 2.0
#: Families that need the broker themselves, and how long they wait for it.
_ASKING = frozenset({"channels", "damage", "later", "malformed"})
_BROKER_SECONDS = 5.0
#: How the harness itself finds the broker when it is away, or damaged.
_AWAY = (redis.RedisError, RmosError, OSError)
#: These last or need long to repair, so they come no later than this before the end.
_SETTLING_SECONDS = {"homes": 8.0, "mounts": 6.0, "damage": 4.0}


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when, in seconds from the start, which, and the seed of its own choices."""

    at: float
    kind: str
    seed: int


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault as it came, by the monotonic clock."""

    #: When it had fallen, or ended if it lasts: what is finished while it falls is no recovery from it.
    at: float
    kind: str


def plan(options: Options) -> list[Planned]:
    """Return the schedule: every kind in turn, in an order and at times drawn from the seed."""
    rng = random.Random(options.seed)  # noqa: S311 - chosen to be repeatable
    planned = []
    for family, kinds, count in _asked_for(options):
        order = cycle(rng.sample(kinds, len(kinds)))
        span = max(options.seconds - 2 * _CALM_SECONDS - _SETTLING_SECONDS.get(family, 0.0), 1.0)
        for slot in range(count):
            # One at a random moment of each of ``count`` equal slots: spread, and yet nowhere regular.
            at = _CALM_SECONDS + span * (slot + rng.random()) / count
            planned.append(Planned(at, next(order), rng.getrandbits(32)))
    return sorted(planned, key=lambda fault: fault.at)


def _asked_for(options: Options) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield families, their wanted kinds, and how many faults; then kinds with a number of their own."""
    for family, every in FAMILIES.items():
        kinds = tuple(
            kind
            for kind in every
            if (not options.only or family == "malformed" or kind in options.only)
            and kind not in options.without
            and kind not in options.counts
        )
        if kinds:
            yield family, kinds, options.count(family, at_least=len(kinds) if family == "malformed" else 0)
    for kind, count in options.counts.items():
        if kind in FAMILY_OF:
            yield FAMILY_OF[kind], (kind,), count


class Faults:
    """Carries faults out, and remembers them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._rng = random.Random()  # noqa: S311 - seeded before each use
        self.happened: list[Happened] = []
        self.counts: Counter[str] = Counter()
        #: Malformed items on their way, by hash, each with its kind; and how many of each were sent.
        self.malformed: dict[str, str] = {}
        self.malformed_sent: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        #: Producers that were killed between the intent and the receipt of some run.
        self.killed_mid_call = 0
        self._store_fault_until: float | None = None
        self.edges = Edges(system, self._rng, self._note)
        self.gateway = GatewayFaults(system, self._rng, self.edges.wait_for)

    def do(self, planned: Planned) -> None:
        """Make the fault happen; one that finds nothing to hit is counted as skipped."""
        self._rng.seed(planned.seed)
        kind, _, variety = planned.kind.partition(":")
        if FAMILY_OF[planned.kind] in _ASKING:
            self.edges.wait_for(self._system.broker_answers, _BROKER_SECONDS)
        if kind == "malformed":
            self._malformed(variety)
            return
        act = self._act(kind)
        self._system.note(kind)
        try:
            detail = act()
        except _AWAY:
            # The harness itself was hit, by what an earlier fault left behind.
            detail = None
        if detail is None:
            self.skipped[kind] += 1
            return
        self.counts[kind] += 1
        self._note(kind, time.monotonic())

    def _act(self, kind: str) -> Callable[[], str | None]:
        family = FAMILY_OF[kind]
        hand: object = self.edges if family in EDGES else self.gateway if family == "gateway" else self
        act: Callable[[], str | None] = getattr(hand, f"_{kind}" if hand is self else kind)
        return act

    def _note(self, kind: str, at: float) -> None:
        self.happened.append(Happened(at, kind))

    def tick(self) -> None:
        """End what was to last only for a while."""
        if self._store_fault_until is not None and time.monotonic() > self._store_fault_until:
            self._store_fault_until = None if self._system.store_faults() else time.monotonic()
        self.edges.tick()

    def heal(self) -> None:
        """End every fault that lasts."""
        self._system.broker.heal()
        self._system.store.heal()
        self._system.gateway.heal()
        self._store_fault_until = 0.0
        self.edges.heal()

    # -- processes --------------------------------------------------------------------------------

    def _kill_child(self) -> str | None:
        children = self._system.census.children(self._system.pids(*WORKERS))
        if not children:
            return None
        child = self._rng.choice(children)
        kill(child)
        return f"pid {child}"

    def _kill_main(self, *roles: str) -> str | None:
        pids = self._system.pids(*roles)
        if not pids:
            return None
        pid = self._rng.choice(pids)
        self._system.doom(pid)
        kill(pid)
        return f"pid {pid}"

    def _kill_worker(self) -> str | None:
        return self._kill_main(*WORKERS)

    def _kill_all_workers(self) -> str | None:
        pids = self._system.pids(*WORKERS)
        for pid in pids:
            self._system.doom(pid)
            kill(pid)
        return "all" if pids else None

    def _kill_after_malformed(self) -> str | None:
        # Just when they are taken off their queues and judged.
        for kind in self._rng.sample(KINDS, 3):
            self._malformed(kind)
        return self._kill_all_workers()

    def _kill_producer(self) -> str | None:
        system = self._system
        if not system.load.alive:
            return None
        await_intent(system.journal, system.load)
        time.sleep(self._rng.random() * 0.01)
        system.load.kill()
        self.killed_mid_call += bool(read_journal(system.journal).open)
        return "load"

    def _kill_advisory_store(self) -> str | None:
        return self._kill_main("advisory-store")

    def _kill_server(self) -> str | None:
        # Nobody but the supervisor starts it again.
        return self._kill_main(SERVER)

    def _kill_flower(self) -> str | None:
        return self._kill_main("flower")

    def _kill_beat(self) -> str | None:
        return self._kill_main("beat")

    def _deploy(self, how: signal.Signals) -> str | None:
        pids = self._system.pids(*WORKERS, unasked=True)
        if not pids:
            return None
        pid = self._rng.choice(pids)
        self._system.ask_to_stop(pid, how)
        return f"pid {pid}"

    def _deploy_sigterm(self) -> str | None:
        return self._deploy(signal.SIGTERM)

    def _deploy_sigquit(self) -> str | None:
        return self._deploy(signal.SIGQUIT)

    # -- connections ------------------------------------------------------------------------------

    def _broker_cut(self) -> str | None:
        return f"{self._system.broker.cut()} connections"

    def _broker_cut_before_answer(self) -> str | None:
        self._system.broker.cut_before_answer(self._rng.randint(1, 5))
        return "of any command"

    def _broker_cut_before_settlement(self) -> str | None:
        # The ledger's scripts: accept, take, claim, finish, wait, bury, beat, reconcile.
        self._system.broker.cut_before_answer(self._rng.randint(3, 10), only=b"EVALSHA")
        return "of scripts"

    def _broker_cut_before_malformed(self) -> str | None:
        self._system.broker.cut_before_answer(2, only=b"\r\ntake\r\n", waiting=True)
        for kind in self._rng.sample(KINDS, 3):
            self._malformed(kind)
        return "of takes"

    def _broker_pause(self) -> str | None:
        seconds = self._rng.uniform(1.0, 4.0)
        self._system.broker.pause(seconds)
        return f"{seconds:.1f} s"

    def _broker_freeze(self) -> str | None:
        return f"{self._system.broker.freeze()} connections"

    def _broker_slow(self) -> str | None:
        seconds = self._rng.uniform(1.0, 4.0)
        self._system.broker.slow(seconds, each=0.05)
        return f"{seconds:.1f} s"

    def _broker_refuse(self) -> str | None:
        seconds = self._rng.uniform(0.5, 4.0)
        self._system.broker.refuse(seconds)
        return f"{seconds:.1f} s"

    def _broker_refuse_after_malformed(self) -> str | None:
        # Popped, refused by the gate, and nowhere to keep it for a while.
        for kind in self._rng.sample(KINDS, 3):
            self._malformed(kind)
        time.sleep(self._rng.random() * 0.005)
        return self._broker_refuse()

    def _client_kill(self) -> str | None:
        killed = 0
        with self._system.direct() as client:
            for kind in ("normal", "pubsub"):
                killed += client.client_kill_filter(_type=kind, skipme=True)
        return f"{killed} connections"

    def _store_cut(self) -> str | None:
        return f"{self._system.store.cut()} connections"

    def _store_cut_before_answer(self) -> str | None:
        self._system.store.cut_before_answer(self._rng.randint(3, 10), only=b'"asset_id"')
        return "of saves"

    def _store_pause(self) -> str | None:
        seconds = self._rng.uniform(1.0, 4.0)
        self._system.store.pause(seconds)
        return f"{seconds:.1f} s"

    def _store_slow(self) -> str | None:
        seconds = self._rng.uniform(1.0, 4.0)
        self._system.store.slow(seconds, each=0.2)
        return f"{seconds:.1f} s"

    def _store_refuse(self) -> str | None:
        seconds = self._rng.uniform(0.5, 4.0)
        self._system.store.refuse(seconds)
        return f"{seconds:.1f} s"

    # -- troubles ---------------------------------------------------------------------------------

    def _lost_notifications(self) -> str | None:
        queue, lost = self._rng.choice(QUEUES), 0
        with self._system.direct() as client:
            queues = JobLedger(client).queues
            # As a worker does whose answer never arrives.
            while lost < 20 and queues.take(queue):
                lost += 1
            with client.pipeline(transaction=True) as pipe:
                pipe.lrange(queue, 0, -1)
                pipe.delete(queue)  # as `celery purge` does
                items, _ = pipe.execute()
            # The malformed messages are to be found again.
            ours = [item for item in items if sha256(item).hexdigest() in self.malformed]
            if ours:
                client.rpush(queue, *ours)
        return f"{lost} of {queue}"

    def _store_trouble(self, **switches: float) -> str | None:
        self._store_fault_until = time.monotonic() + self._rng.uniform(1.0, 4.0)
        return str(switches) if self._system.store_faults(**switches) else None

    def _store_errors(self) -> str | None:
        return self._store_trouble(error_rate=0.7)

    def _store_429(self) -> str | None:
        return self._store_trouble(rate_429=0.7, retry_after_seconds=1)

    def _store_latency(self) -> str | None:
        return self._store_trouble(latency_ms=self._rng.choice((200, 1_000)))

    def _store_drops(self) -> str | None:
        return self._store_trouble(drop_rate=0.5)

    # -- messages ---------------------------------------------------------------------------------

    def _notification(self) -> bytes:
        """Return a notification for a job that only another database knows."""
        with self._system.scratch() as client:
            return notification_of(JobLedger(client))

    def _malformed(self, kind: str) -> None:
        try:
            item = make(kind, self._notification())
            digest = sha256(item).hexdigest()
            # Known before it is pushed: a queue may be emptied at any time.
            self.malformed[digest] = kind
            with self._system.direct() as client:
                client.lpush(self._rng.choice(QUEUES), item)
        except _AWAY:
            self.skipped[f"malformed:{kind}"] += 1
        else:
            self.malformed_sent[digest] += 1
