"""``rmos audit seal | rotate`` as programs, on a real broker: what they seal, refuse and leave on record."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.operations import sealing
from rmos_runs.operations.proofs import Prover, Stored
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.entry import RecordEntry, parse_entry
from rmos_shared.auditlog.layout import ACTS, checkpoint_key
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Note
from rmos_shared.errors import SettingsInvalid
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.ledger import JobLedger
from rmos_shared.jobs.model import Failure
from rmos_shared.jobs.work import Lease
from rmos_shared.sealing.parts import SealParts
from rmos_shared.sealing.run import SealingRun
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.store.base import Outcome
from rmos_shared.store.local import LocalStore
from rmos_shared.store.publication import Publication
from rmos_worker.engine.sealing import seal_job
from support import spawn
from support.audit_log import assert_sound
from support.command import RMOS, environment, piped


class Shop:
    """A store, its key, the feed of its ledger, and ``rmos audit`` on all of it."""

    def __init__(self, runs_dir: Path, ledger: JobLedger, broker_url: str, place: Path) -> None:
        self.store = LocalStore(runs_dir)
        self.runs_dir = runs_dir
        self.ledger = ledger
        self.place = place
        self.key = place / "one.pem"
        self.settings = {"RMOS_BROKER_URL": broker_url, "RMOS_RUNS_DIR": str(runs_dir)}
        self.vkey = self("keygen", str(self.key)).stdout.strip()
        self.written = 0
        self.last = runs_dir

    def __call__(self, *words: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        return piped("audit", *words, home=self.place / "home", **self.environment(key))

    def environment(self, key: Path | None = None) -> dict[str, str]:
        return {**self.settings, "RMOS_AUDIT_KEY_FILE": str(key or self.key)}

    def json(self, *words: str, code: int = 0, key: Path | None = None) -> Any:
        done = self(*words, "--json", key=key)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def publish(self, number: int = 1, *, told: bool = True) -> None:
        published = []
        for _ in range(number):
            self.written += 1
            key, data = f"{datetime.now(UTC).date()}/{new_uuid7()}.json", f"{self.written}".encode()
            self.last = self.runs_dir / key
            assert self.store.create(key, data) is Outcome.CREATED
            published.append(Publication.of(key, data, Outcome.CREATED))
        if told:
            self.ledger.unsealed.add(published)

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.store, origin_of(self.store.identity().store_id))

    def records(self) -> list[RecordEntry]:
        entries = map(parse_entry, self.log.entries())
        return [entry for entry in entries if isinstance(entry, RecordEntry)]

    def verify(self, *words: str, code: int = 0) -> set[str]:
        report = self.json("verify", str(self.runs_dir), "--no-state", *words, code=code)
        return {finding["kind"] for finding in report["findings"]}


@pytest.fixture
def shop(runs_dir: Path, ledger: JobLedger, broker_url: str, tmp_path: Path) -> Shop:
    return Shop(runs_dir, ledger, broker_url, tmp_path)


def test_status_names_the_dead_job_that_sealing_waits_for(shop: Shop, ledger: JobLedger) -> None:
    shop.publish(1)
    job = seal_job(ledger.unsealed.state(begin=True).number)
    lease = Lease("somebody", "once")
    ledger.accept([job])
    ledger.work.claim([job.job_id], lease, lease_seconds=60)
    failure = Failure(reason="misconfigured", error_type="SettingsInvalid", message="")
    ledger.work.bury(job.job_id, lease, failure=failure)
    assert shop.json("status")["sealing"]["dead_job"] == job.job_id
    assert f"the seal job is dead: rmos dlq show {job.job_id}" in shop("status").stdout


def test_sealing_by_hand_takes_what_the_feed_tells_and_with_all_what_nobody_told(shop: Shop) -> None:
    shop.publish(3)
    first = shop.json("seal")
    assert first["size"] == shop.log.newest_size() > 3
    shop.publish(2)
    shop.publish(1, told=False)
    old = time.time() - 600
    os.utime(shop.last, (old, old))
    assert shop.json("status")["sealing"]["unsealed"] >= 1
    assert ", the oldest for " in shop("status").stdout
    told = shop.json("seal")
    assert (told["records"], told["late"]) == (2, 0)
    assert shop.verify("--key", shop.vkey, code=7) <= {"extra", "unsealed"}
    assert shop.json("seal", "--all")["late"] == 1
    assert [record.found for record in shop.records()][-1] == "late"
    again = shop("seal")
    assert (again.returncode, again.stdout.startswith("sealed: 0 records")) == (0, True)
    assert_sound(shop.log)
    assert shop.verify("--key", shop.vkey, code=7) == {"late"}


def test_many_at_once_make_one_log(shop: Shop) -> None:
    shop.publish(1)
    assert shop.json("seal")["size"]
    shop.publish(40)
    running = [
        spawn.Popen[str](
            [*RMOS, "audit", "seal", "--json"],
            env=environment(RMOS_HOME=str(shop.place / "home"), **shop.environment()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, ended
    assert sum(json.loads(out)["records"] for out, _ in ended) == 40
    assert_sound(shop.log)
    assert shop.verify("--key", shop.vkey) == set()


def test_a_new_key_is_introduced_by_the_old_one_and_the_old_public_key_is_enough(shop: Shop) -> None:
    shop.publish(3)
    shop.json("seal")
    new = shop.place / "two.pem"
    new_vkey = shop("keygen", str(new)).stdout.strip()
    # A key that nobody introduced is refused.
    shop.publish(1)
    refused = shop("seal", key=new)
    assert refused.returncode == 2
    assert "rmos audit rotate" in refused.stderr
    assert shop("rotate", str(new)).returncode == 2  # --why
    assert shop("rotate", str(shop.key), "--why", "x").returncode == 3
    done = shop.json("rotate", str(new), "--why", "yearly", "--as", "Ana")
    assert (done["old_vkey"], done["new_vkey"]) == (shop.vkey, new_vkey)
    (introduced,) = [record for record in shop.records() if record.trusts]
    assert (introduced.trusts, introduced.key) == (
        new_vkey,
        f"{ACTS}{datetime.now(UTC).date()}/{done['act_id']}_begun.json",
    )
    act = json.loads(shop.store.get(introduced.key) or b"")
    assert (act["kind"], act["why"], act["about"]["trusts"]) == ("key_rotation", "yearly", new_vkey)
    assert "as Ana" in act["by"]
    note = Note.parse(shop.store.get(checkpoint_key(done["size"])) or b"")
    assert [f"{line.key_id.hex()}" for line in note.signatures] == [shop.vkey.split("+")[1]]
    # From here on the new one signs.
    shop.publish(2)
    sealed = shop("seal", "--json", key=new)
    assert json.loads(sealed.stdout)["records"] >= 2
    # The act is still in the feed, and no alarm for whoever reads it under the key that it introduced.
    assert "key.unintroduced" not in sealed.stderr
    assert shop.json("status", key=new)["key_signed"] is True
    assert_sound(shop.log)
    # Who has the old public key alone needs no other; and only it proves the beginning.
    assert shop.verify("--key", shop.vkey) == set()
    assert shop.verify("--key", new_vkey, code=7) == {"unknown_key"}
    # Who has the new private key needs no other either: the file beside it tells which ones were before.
    assert new.with_name("two.pem.pub").read_text() == f"{new_vkey}\n{shop.vkey}\n"
    assert shop("key", key=new).stdout.split() == [new_vkey, shop.vkey]
    assert shop.json("verify", key=new)["findings"] == []
    proven = shop.place / "proof"
    (first, *_) = shop.records()
    prover = Prover(shop.store)
    ((index, key),) = prover.find({first.key: None})
    proven.write_bytes(prover.prove(index, Stored(key, first.sha256)).to_bytes())
    assert shop.json("check", str(proven), str(shop.runs_dir / key), key=new)["findings"] == []
    assert shop("check", str(proven), str(shop.runs_dir / key), "--key", new_vkey).returncode == 7
    shop.publish(1)
    assert shop("seal").returncode == 2  # the old one is retired
    assert shop("rotate", str(new), "--why", "again").returncode == 2


def test_each_new_key_is_given_the_public_keys_of_all_before_it(shop: Shop) -> None:
    vkeys, at = [shop.vkey], shop.key
    for name in ("two.pem", "three.pem"):
        shop.publish(1)
        new = shop.place / name
        vkeys.insert(0, shop("keygen", str(new)).stdout.strip())
        done = shop("rotate", str(new), "--why", "yearly", key=at)
        assert done.returncode == 0, done.stderr
        at = new
    assert shop("seal", key=at).returncode == 0
    public = at.with_name(f"{at.name}.pub")
    assert public.read_text().split() == vkeys
    assert shop.json("verify", key=at)["findings"] == []
    # A file that is another key's is not written over, and then nothing is introduced.
    other = shop.place / "four.pem"
    shop("keygen", str(other))
    other.with_name("four.pem.pub").write_text(public.read_text())
    refused = shop("rotate", str(other), "--why", "x", key=at)
    assert refused.returncode == 2
    assert "is not the public half" in refused.stderr
    assert [record.trusts for record in shop.records() if record.trusts] == vkeys[1::-1]


def test_a_rotation_that_a_sealer_without_the_key_took_is_called_none(
    shop: Shop, ledger: JobLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is unsigned so far, and a worker-audit that was not restarted since the first key has none."""
    keyed = AuditSettings.load(audit_key_file=shop.key)
    new = shop.place / "two.pem"
    shop("keygen", str(new))
    keyless = SealingRun(ledger, SealParts.of(AuditSettings.load(), shop.store, ledger), lock_seconds=5)
    keyless.run(lambda _: False)
    introduce = sealing._introduce

    def taken(*given: Any, **told: Any) -> str:
        act_id = introduce(*given, **told)
        keyless.run(lambda _: False)
        return act_id

    with monkeypatch.context() as between:
        between.setattr(sealing, "_introduce", taken)
        with pytest.raises(SettingsInvalid, match=r"does not trust the new key.*worker-audit.*rotate again"):
            sealing.rotate(ledger, keyed, shop.store, new, by="op", why="yearly")
    assert [record.trusts for record in shop.records()] == [None, None]
    # Done as it says, it works.
    done = shop.json("rotate", str(new), "--why", "yearly")
    assert [record.trusts for record in shop.records() if record.trusts] == [done["new_vkey"]]
    shop.publish(1)
    assert shop.json("seal", key=new)["records"] >= 1
    assert_sound(shop.log)


def test_without_a_key_there_is_nothing_to_rotate(shop: Shop) -> None:
    new = shop.place / "two.pem"
    shop("keygen", str(new))
    done = piped(*("audit", "rotate", str(new), "--why", "x"), home=shop.place / "home", **shop.settings)
    assert done.returncode == 2
    assert "no key is in use" in done.stderr


def test_a_restored_store_is_gone_on_with_only_on_record(shop: Shop) -> None:
    shop.publish(3)
    shop.json("seal")
    backup = shop.place / "backup"
    shutil.copytree(shop.runs_dir, backup)
    shop.publish(2)
    newer = shop.json("seal")["size"]
    remember_in_ledger(shop)
    kept = shop.place / "kept"
    kept.write_bytes(shop.store.get(checkpoint_key(newer)) or b"")
    assert shop("seal", "--accept-restored", "--why", "x").returncode == 5  # nothing was restored
    for path in shop.runs_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(backup, shop.runs_dir, dirs_exist_ok=True)
    refused = shop("seal")
    assert refused.returncode == 7
    assert "--accept-restored" in refused.stderr
    assert shop("seal", "--accept-restored").returncode == 2  # --why
    done = shop.json("seal", "--accept-restored", "--why", "the disk died")
    assert done["act_id"]
    acts = [json.loads(shop.store.get(key) or b"") for key in shop.store.list(ACTS)]
    (restored,) = [act for act in acts if act["kind"] == "audit_restored" and "about" in act]
    assert restored["why"] == "the disk died"
    assert f"\n{newer}\n" in restored["about"]["remembered"]
    assert restored["about"]["restored"] != restored["about"]["remembered"]
    assert any(done["act_id"] in record.key for record in shop.records())
    assert_sound(shop.log)
    # Who kept the newer checkpoint says so all the same.
    assert shop.verify("--key", shop.vkey, "--since", str(kept), code=7) & {"rolled_back", "inconsistent"}


def test_a_log_whose_key_is_lost_is_kept_and_a_new_one_begins_on_record(shop: Shop) -> None:
    shop.publish(3)
    shop.json("seal")
    remember_in_ledger(shop)
    old, kept = shop.place / "old", shop.place / "kept"
    kept.write_bytes(shop.store.get(checkpoint_key(shop.log.newest_size())) or b"")
    new = shop.place / "new.pem"
    new_vkey = shop("keygen", str(new)).stdout.strip()
    shop.publish(2)
    assert shop("seal", key=new).returncode == 2  # nobody introduced it, and nobody can
    (shop.runs_dir / "_log").rename(old)
    refused = shop("seal", key=new)
    assert (refused.returncode, "--accept-restored" in refused.stderr) == (7, True)
    assert not (shop.runs_dir / "_log").exists()
    done = shop.json("seal", "--accept-restored", "--why", "the key is lost", key=new)
    (act,) = [record.key for record in shop.records() if f"{done['act_id']}_begun" in record.key]
    assert json.loads(shop.store.get(act) or b"")["about"]["restored"] is None
    remember_in_ledger(shop)
    shop.publish(1)
    assert shop.json("seal", "--all", key=new)["late"] == 0
    assert len(shop.records()) >= 6
    assert_sound(shop.log)
    assert shop.json("verify", key=new)["findings"] == []
    # The old log proves what it held to whoever remembers it, and never what came after it.
    assert shop.verify("--key", new_vkey, "--since", str(kept), code=7) & {"rolled_back", "inconsistent"}
    assert shop.verify("--key", shop.vkey, code=7) == {"unknown_key"}
    copy = shop.place / "copy"
    shutil.copytree(shop.runs_dir, copy, ignore=shutil.ignore_patterns("_log"))
    shutil.copytree(old, copy / "_log")
    words = ("verify", str(copy), "--no-state", "--key", shop.vkey, "--since", str(kept), "--json")
    assert {finding["kind"] for finding in json.loads(shop(*words).stdout)["findings"]} <= {"unsealed"}


def remember_in_ledger(shop: Shop) -> None:
    """Have the ledger know the newest checkpoint, as the end of a seal job tells it."""
    note = shop.store.get(checkpoint_key(shop.log.newest_size())) or b""
    shop.ledger.unsealed._script.client.hset("rmos:seals", "checkpoint", note)
