"""Keys of the ledger that are of a wrong type for a while: put there, and taken away again."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES

_KEPT = "chaos:kept:"
#: ``{}`` stands for a queue; the mark of each key is its type.
KEYS = {
    "letters": "rmos:letters",
    "counts": "rmos:counts",
    "subjects": "rmos:subjects",
    "workers": "rmos:workers",
    "waiting": "rmos:waiting",
    "dead": "rmos:dead",
    "raw": "rmos:raw",
    "ready": "rmos:ready:{}",
    "taken": "rmos:taken",
    "wake": "rmos:wake:{}",
    "queue": "{}",
    "mirror": DEAD_LETTER_QUEUE,
}
#: Those whose right type is a text; a list is put there instead, and a text everywhere else.
_TEXTS = frozenset({"letters", "payload"})
#: Puts the key aside, whatever it is, and something of a wrong type in its place. KEYS: it, where to keep it.
_PLANT = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
if ARGV[1] == 'list' then redis.call('RPUSH', KEYS[1], 'damage') else redis.call('SET', KEYS[1], 'damage') end
"""
#: Puts it back. Answers 0 if somebody had put something else there meanwhile.
_RESTORE = """
local untouched = redis.call('TYPE', KEYS[1]).ok == ARGV[1] and 1 or 0
local had = redis.call('EXISTS', KEYS[2])
if untouched == 0 and had == 1 and redis.call('TYPE', KEYS[1]).ok == 'zset' then
  redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2], 'AGGREGATE', 'MAX')
  redis.call('DEL', KEYS[2])
elseif untouched == 0 and had == 1 and redis.call('TYPE', KEYS[1]).ok == 'string' then
  -- A number that was counted on from elsewhere; it must not go back.
  local now, before = tonumber(redis.call('GET', KEYS[1])), tonumber(redis.call('GET', KEYS[2]))
  if not (now and before and now > before) then redis.call('RENAME', KEYS[2], KEYS[1]) end
  redis.call('DEL', KEYS[2])
  return 1
elseif untouched == 0 and had == 1 and ARGV[2] == 'mirror' then
  -- The ledger makes this one anew; its own is the younger.
  redis.call('DEL', KEYS[2])
  return 1
elseif had == 1 then
  redis.call('RENAME', KEYS[2], KEYS[1])
elseif untouched == 1 then
  redis.call('DEL', KEYS[1])
end
return (untouched == 1 or had == 0) and 1 or 0
"""


@dataclass(frozen=True, slots=True)
class Damage:
    """One key that is of a wrong type now."""

    name: str
    key: str
    until: float
    #: The job that it belongs to; empty for a key that all share.
    job_id: str = ""

    @property
    def kind(self) -> str:
        """The type that was put there."""
        return "list" if self.name in _TEXTS else "string"


def plant(client: redis.Redis, damage: Damage) -> None:
    client.eval(_PLANT, 2, damage.key, _KEPT + damage.key, damage.kind)


def restore(client: redis.Redis, damage: Damage) -> bool:
    """Put the key back as it was. Returns whether nobody had put another in its place."""
    keys = (damage.key, _KEPT + damage.key)
    untouched = client.eval(_RESTORE, 2, *keys, damage.kind, damage.name)
    return bool(untouched)


def drop_payload(client: redis.Redis, job_id: str) -> None:
    """A job that was done meanwhile needs its payload no more."""
    if client.hget(f"rmos:job:{job_id}", "state") == b"done":
        client.delete(f"rmos:payload:{job_id}")


def key_of(name: str, queue: str) -> str:
    return KEYS[name].format(queue)


def queue_for(name: str, number: int) -> str:
    return QUEUES[number % len(QUEUES)] if "{}" in KEYS[name] else ""
