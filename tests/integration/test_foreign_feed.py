"""What another program wrote into the feed of the audit log, or beside it, stops no seal."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import MOST_SIZE, RecordEntry, parse_entry
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.canonical import sha256_hex
from rmos_shared.errors import BrokerDamaged
from rmos_shared.jobs.acts import ActKind
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import Come, SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.local import LocalStore
from rmos_shared.store.publication import Publication
from rmos_shared.telemetry.events import FeedUnreadable
from support.audit_log import assert_sound
from support.command import piped
from support.events import events_in

HASH = "a" * 64
KEY = "2026-08-01/run_1.json"
#: Items of an entry of the feed that no entry of the log can be of.
BAD_ITEMS: dict[str, Any] = {
    "key that leaves the store": ["../../x", HASH, 5, "c"],
    "key too long for a file": ["a/" + "x" * 300, HASH, 5, "s"],
    "key with a foreign letter": ["2026-08-01/é.json", HASH, 5, "s"],
    "key of the log itself": ["_log/seals/000", HASH, 5, "c"],
    "key of the store itself": ["_store.json", HASH, 5, "c"],
    "key that is no text": [7, HASH, 5, "c"],
    "no hash": [KEY, "not a hash", 5, "c"],
    "hash in capitals": [KEY, HASH.upper(), 5, "c"],
    "hash that is no text": [KEY, None, 5, "c"],
    "size below zero": [KEY, HASH, -5, "s"],
    "size too large": [KEY, HASH, MOST_SIZE, "c"],
    "size that is no number": [KEY, HASH, True, "c"],
    "fraction": [KEY, HASH, 5.0, "c"],
    "too short": [KEY, HASH, 5],
    "no list": {"key": KEY},
    "nothing": None,
}


@pytest.fixture
def store(runs_dir: Path) -> LocalStore:
    return LocalStore(runs_dir)


def run(ledger: JobLedger, store: LocalStore) -> Come:
    parts = SealParts.of(AuditSettings.load(), store, ledger)
    return SealingRun(ledger, parts, lock_seconds=5).run(lambda _: False)


def log_of(store: LocalStore) -> AuditLog:
    return AuditLog(store, origin_of(store.identity().store_id))


def sealed(store: LocalStore) -> list[str]:
    entries = map(parse_entry, log_of(store).entries())
    return [entry.key for entry in entries if isinstance(entry, RecordEntry)]


def told(name: str) -> Publication:
    return Publication(f"2026-08-01/{name}.json", sha256_hex(name.encode()), 5, created=True)


def item(name: str) -> list[Any]:
    publication = told(name)
    return [publication.key, publication.sha256, publication.size_bytes, "c"]


@pytest.mark.parametrize("bad", BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_item_of_the_feed_is_reported_and_all_others_are_sealed(
    ledger: JobLedger,
    store: LocalStore,
    redis_client: Any,
    caplog: pytest.LogCaptureFixture,
    bad: Any,
) -> None:
    ledger.unsealed.add([told("before")])
    items = json.dumps([item("beside"), bad, item("behind")])
    redis_client.xadd("rmos:unsealed", {"n": 3, "total": 4, "p": items})
    ledger.unsealed.add([told("after")])
    assert run(ledger, store).records == 4
    keys = [told(name).key for name in ("before", "beside", "behind", "after")]
    assert sealed(store) == keys
    assert_sound(log_of(store))
    reported = [event for event in events_in(caplog) if isinstance(event, FeedUnreadable)]
    assert [event.error for event in reported] == ["1 of 3 publications"]


@pytest.mark.parametrize("text", ["null", "7", "{", "[" * 100_000, '"abcd"', '{"a": 1}'])
def test_an_entry_that_is_no_list_tells_of_nothing(
    ledger: JobLedger, store: LocalStore, redis_client: Any, text: str
) -> None:
    redis_client.xadd("rmos:unsealed", {"n": 1, "total": 1, "p": text})
    ledger.unsealed.add([told("after")])
    assert run(ledger, store).records == 1
    assert sealed(store) == [told("after").key]


def test_foreign_fields_of_the_record_of_seals_are_passed_by(
    ledger: JobLedger, store: LocalStore, redis_client: Any
) -> None:
    ledger.unsealed.state(begin=True)
    redis_client.hset("rmos:seals", b"\xff\xfe", b"\xff")
    redis_client.hset("rmos:seals", mapping={f"field_{number}": "1" for number in range(9_000)})
    ledger.unsealed.add([told("one")])
    assert ledger.unsealed.state().unsealed == 1
    assert run(ledger, store).records == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint", b"\xff"),
        ("signed_by", b"\xff"),
        ("size", b"many"),
        ("number", b"9" * 400),
        ("late", b"-1"),
        ("next", b"tomorrow"),
        ("next", b"2026-08-01T00:00:00"),
        ("reconciled_at", b"9" * 18),
        ("whole_at", b"253402300800000"),
        ("since", b"\xff"),
    ],
)
def test_an_unreadable_field_is_named_and_taken_away_alone(
    ledger: JobLedger, redis_client: Any, name: str, value: bytes
) -> None:
    number = ledger.unsealed.state(begin=True).number
    redis_client.hset("rmos:seals", mapping={"root": "00", name: value})
    ledger.unsealed.add([told("one")])
    with pytest.raises(BrokerDamaged, match=rf"rmos:seals.*\(field {name}\).*rmos jobs repair --feed"):
        ledger.unsealed.state()
    assert ledger.unsealed.repair() == [f"rmos:seals {name}"]
    assert ledger.unsealed.repair() == []
    state = ledger.unsealed.state(begin=True)
    assert (state.root, state.unsealed) == ("00", 1), "what was well stays"
    assert name == "number" or state.number == number


@pytest.mark.parametrize("feed_id", ["253402300800000-0", "999999999999999-7", f"{2**64 - 1}-1"])
def test_ids_that_tell_no_time_are_named_and_replaced_and_nothing_is_lost(
    ledger: JobLedger, store: LocalStore, redis_client: Any, feed_id: str
) -> None:
    """All that comes after such an id gets one that is greater still."""
    ledger.unsealed.add([told("before")])
    act_id = ledger.acts.begin(ActKind.REPAIR, by="op", why="test", about={}, found=0)
    (kept, _) = redis_client.xrange("rmos:unsealed")
    redis_client.xadd("rmos:unsealed", {"x": "y"}, id=feed_id)
    redis_client.xadd("rmos:unsealed", {f"field {number}": "" for number in range(9_000)})
    ledger.unsealed.add([told("after")])
    wrong_key = r"feed, rmos:unsealed, .*rmos jobs repair --feed"
    for attempt in (ledger.unsealed.state, lambda: ledger.unsealed.read(most=10), lambda: run(ledger, store)):
        with pytest.raises(BrokerDamaged, match=wrong_key):
            attempt()
    assert ledger.unsealed.repair() == ["rmos:unsealed ids"]
    assert ledger.unsealed.repair() == []
    assert redis_client.xrange("rmos:unsealed", count=1) == [kept], "one that is well keeps its place"
    page = ledger.unsealed.read(most=10)
    assert [entry.published for entry in page.entries if entry.published] == [
        (told("before"),),
        (told("after"),),
    ]
    ledger.unsealed.add([told("last")])
    ids = [raw.decode() for raw, _ in redis_client.xrange("rmos:unsealed")]
    assert all(int(one.partition("-")[0]) < 2**42 for one in ids), ids
    run(ledger, store)
    keys = sealed(store)
    assert keys[0] == told("before").key
    assert keys[-2:] == [told("after").key, told("last").key]
    assert any(key.endswith(f"{act_id}_begun.json") for key in keys)
    assert_sound(log_of(store))


def test_a_feed_of_nothing_but_what_no_program_of_ours_wrote_is_begun_anew(
    ledger: JobLedger, redis_client: Any
) -> None:
    fields = {f"field {number}": "" for number in range(9_000)}
    redis_client.xadd("rmos:unsealed", fields, id="999999999999999-7")
    assert ledger.unsealed.repair() == ["rmos:unsealed ids"]
    ledger.unsealed.add([told("one")])
    (entry,) = ledger.unsealed.read(most=10).entries
    assert abs((datetime.now(UTC) - entry.at).total_seconds()) < 60


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "id": lambda client: client.xadd("rmos:unsealed", {"x": "y"}, id="999999999999999-0"),
    "field": lambda client: client.hset("rmos:seals", "signed_by", b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_operator_is_told_what_to_do_and_that_does_it(  # noqa: PLR0917 - fixtures
    store: LocalStore, redis_client: Any, broker_url: str, runs_dir: Path, tmp_path: Path, damage: str
) -> None:
    settings = {"RMOS_BROKER_URL": broker_url, "RMOS_RUNS_DIR": str(runs_dir)}

    def rmos(*words: str) -> tuple[int, str]:
        done = piped(*words, home=tmp_path / "home", **settings)
        return done.returncode, done.stdout + done.stderr

    DAMAGE[damage](redis_client)
    for words in (("audit", "status"), ("audit", "seal"), ("doctor",)):
        code, said = rmos(*words)
        assert (code, "rmos jobs repair --feed" in said) == (7, True), said
    code, said = rmos("jobs", "repair", "--feed", "--why", "another program")
    assert (code, "rmos:" in said) == (0, True), said
    code, said = rmos("audit", "seal")
    assert (code, "sealed: " in said) == (0, True), said
    assert any(key.startswith("_acts/") for key in sealed(store)), "the repair is on record"
