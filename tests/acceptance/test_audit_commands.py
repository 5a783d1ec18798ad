"""``rmos audit`` as an operator and an auditor run it, on real files; nothing is mocked."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.local.home import Home
from rmos_runs.operations.proofs import Prover, Stored
from rmos_shared.auditlog.checkpoint import origin_of
from rmos_shared.auditlog.introduction import introduce
from rmos_shared.auditlog.keys import load_file
from rmos_shared.auditlog.layout import CHECKPOINTS, checkpoint_key, timestamp_key
from rmos_shared.auditlog.note import KeyKind, Note, Verifier
from rmos_shared.auditlog.proof import InclusionProof
from rmos_shared.auditlog.timestamp import stamp_query
from rmos_shared.canonical import sha256_hex
from rmos_shared.ids import new_uuid7
from rmos_shared.runs.model import RunArtifact
from support.command import environment, piped
from support.records import make_link, make_run
from support.sealed import SealedStore, new_signer
from support.tsa import Authority


class Shop:
    """A home whose store is sealed by a key of its own, and ``rmos audit`` on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        home = Home(root / "home")
        home.init_store()
        self.home = home.root
        self.runs_dir = home.runs_dir
        self.key = root / "log.pem"
        made = piped("audit", "keygen", str(self.key), home=self.home)
        assert made.returncode == 0, made.stderr
        self.vkey = made.stdout.strip()
        origin = origin_of(json.loads((self.runs_dir / "_store.json").read_text())["store_id"])
        self.sealed = SealedStore(self.runs_dir, load_file(self.key, origin))
        self.run = self.put()
        self.sealed.runs.writer.attach(make_link(self.run))
        self.sealed.seal()

    def put(self) -> RunArtifact:
        run = make_run(datetime.now(UTC))
        self.sealed.runs.writer.put_run(run)
        return run

    @property
    def artifact(self) -> Path:
        return self.runs_dir / self.run.date / f"{self.run.run_id}.json"

    def __call__(self, *words: str, key: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        named = {"RMOS_AUDIT_KEY_FILE": str(self.key)} if key else {}
        return piped("audit", *words, home=self.home, **named, **changes)

    def json(self, *words: str, code: int = 0, **options: Any) -> Any:
        done = self(*words, "--json", **options)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_key_in_the_home_needs_no_name(shop: Shop) -> None:
    assert shop("key", key=False).returncode != 0
    made = shop("keygen", key=False)
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((shop.home / "audit.pem").stat().st_mode) == 0o600
    assert shop("key", key=False).stdout == made.stdout
    assert shop("key").stdout.strip() == shop.vkey  # one that is named outranks it
    assert shop("keygen", "--name", "w.example/w1").returncode == 2


def spoil(path: Path, data: bytes) -> None:
    path.chmod(0o640)
    path.write_bytes(data)


def kinds(report: Any) -> set[str]:
    return {finding["kind"] for finding in report["findings"]}


# Keys


def test_a_key_is_for_its_owner_alone_and_never_over_anything(shop: Shop, tmp_path: Path) -> None:
    assert stat.S_IMODE(shop.key.stat().st_mode) == 0o600
    assert Verifier.parse(shop.vkey).name == shop.sealed.origin
    assert (tmp_path / "log.pem.pub").read_text() == f"{shop.vkey}\n"
    before = shop.key.read_bytes()
    again = shop("keygen", str(shop.key))
    assert (again.returncode, again.stdout) == (5, "")
    assert "is there already" in again.stderr
    shop.key.rename(tmp_path / "moved.pem")
    assert shop("keygen", str(shop.key)).returncode == 5  # its public half is there
    assert not shop.key.exists()
    (tmp_path / "moved.pem").rename(shop.key)
    assert shop.key.read_bytes() == before
    assert shop("keygen", str(tmp_path / "no/where.pem")).returncode == 2
    witness = shop.json("keygen", str(tmp_path / "w.pem"), "--name", "witness.example/w1")
    assert Verifier.parse(witness["vkey"]).kind is KeyKind.COSIGNATURE
    assert shop("keygen", str(tmp_path / "x.pem"), "--name", "two words").returncode == 7
    assert not (tmp_path / "x.pem").exists()


def test_the_public_key_is_printed_and_the_private_one_never(shop: Shop) -> None:
    secret = "".join(shop.key.read_text().split("\n")[1:-2])
    told = [shop("key"), shop("key", "--json"), shop("status"), shop("status", "--json")]
    by_value = piped("audit", "key", home=shop.home, RMOS_AUDIT_KEY=shop.key.read_text())
    assert by_value.stdout.strip() == told[0].stdout.strip() == shop.vkey
    wrong = piped("audit", "key", home=shop.home, RMOS_AUDIT_KEY=secret)
    assert wrong.returncode == 2
    for done in (*told, by_value, wrong):
        assert secret not in done.stdout + done.stderr
    none = shop("key", key=False)
    assert none.returncode == 2
    assert "rmos audit keygen" in none.stderr
    shop.key.chmod(0o644)
    assert shop("key").returncode == 2


def test_status_says_what_is_sealed_and_by_whom(shop: Shop) -> None:
    found = shop.json("status")
    newest = shop.sealed.newest
    assert (found["size"], found["root"], found["origin"]) == (3, newest.root.hex(), newest.origin)
    assert (found["key"], found["key_signed"], found["overdue"]) == (shop.vkey, True, False)
    assert (found["sealing"], found["witnesses"]) == (None, [])
    assert 0 <= found["age_seconds"] < 600
    told = shop("status", key=False)
    assert "unsealed    not known" in told.stdout
    assert "the broker is away" in told.stderr
    shutil.rmtree(shop.runs_dir / "_log")
    assert "nothing is sealed yet" in shop("status").stdout


# Verify


def test_a_store_that_nobody_touched_is_clean_and_remembered(shop: Shop) -> None:
    report = shop.json("verify")
    assert report["findings"] == []
    assert report["summary"]["entries"] == 3
    (memory,) = (shop.home / "audit").iterdir()
    assert memory.read_bytes() == shop.sealed.store.get(checkpoint_key(3))
    # Of a live store it is said when the newest seal is late; a copy is not in use.
    assert not any("--live" in left for left in report["summary"]["not_looked_at"])
    copy = shop.json("verify", "--copy", "--no-state", key=False, code=0)
    assert any("--live" in left for left in copy["summary"]["not_looked_at"])
    text = shop("verify")
    assert text.returncode == 0
    assert "findings       none" in text.stdout


def test_whatever_is_changed_is_named_and_makes_the_exit_code_7(shop: Shop) -> None:
    stored = shop.artifact.read_bytes()
    spoil(shop.artifact, stored.replace(b"GREEN", b"green"))
    assert kinds(shop.json("verify", code=7)) == {"modified"}
    spoil(shop.artifact, stored)
    assert shop.json("verify")["findings"] == []
    assert shop("verify", "--key", f"{shop.vkey[:-5]}AAAA=").returncode == 2
    shop.artifact.unlink()
    assert kinds(shop.json("verify", code=7)) == {"missing"}


def test_a_store_that_is_replaced_by_an_older_one_is_rolled_back(shop: Shop, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(shop.runs_dir, old)
    shop.sealed.grow(3)
    assert shop.json("verify")["findings"] == []
    report = shop.json("verify", str(old), "--key", shop.vkey, code=7)
    assert kinds(report) == {"rolled_back"}
    assert shop.json("verify", str(old), "--key", shop.vkey, "--no-state")["findings"] == []
    shutil.rmtree(shop.runs_dir)
    shutil.move(old, shop.runs_dir)
    assert kinds(shop.json("verify", code=7)) == {"rolled_back"}


def test_a_store_may_have_the_name_of_an_option(shop: Shop) -> None:
    done = shop("verify", "--", "-x")
    assert done.returncode == 6
    assert "-x cannot be opened" in done.stderr


def test_every_option_of_the_script_is_passed_through(shop: Shop, tmp_path: Path) -> None:
    since = tmp_path / "since"
    since.write_bytes(shop.sealed.store.get(checkpoint_key(3)) or b"")
    shop.sealed.grow(3)
    witness = piped("audit", "keygen", str(tmp_path / "w.pem"), "--name", "w.example/w1", home=shop.home)
    state = tmp_path / "state"
    options = ("--since", str(since), "--state", str(state), "--jobs", "1", "--live")
    report = shop.json("verify", str(shop.runs_dir), "--key", str(tmp_path / "log.pem.pub"), *options)
    assert any("--since" in left for left in report["summary"]["not_looked_at"])
    assert state.read_bytes() == shop.sealed.store.get(checkpoint_key(shop.sealed.newest.size))
    assert not (shop.home / "audit").exists()
    # A witness whose word must be there, and is not.
    missing = shop("verify", "--witness", witness.stdout.strip(), "--json")
    assert missing.returncode == 7
    assert shop("verify", str(tmp_path / "nowhere")).returncode == 6


# Proofs


def test_a_run_is_proven_by_files_that_are_the_same_whenever_they_are_made(
    shop: Shop, tmp_path: Path
) -> None:
    rows = shop.json("prove", shop.run.run_id, "-o", str(tmp_path / "one"))
    assert [row["key"].rpartition("/")[2] for row in rows] == [
        f"{shop.run.run_id}.json",
        f"{shop.run.run_id}_advisory_adv1.json",
    ]
    shop.sealed.grow(20)
    assert shop("prove", shop.run.run_id, "-o", str(tmp_path / "two")).returncode == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tlog-proof"))
    assert [str(file) for file in files] == ["artifact.json.tlog-proof", "links/adv1.json.tlog-proof"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert shop("prove", shop.run.run_id, "-o", str(tmp_path / "two")).returncode == 5
    newest = shop.json("prove", shop.run.run_id, "-o", str(tmp_path / "two"), "--newest", "--force")
    assert {row["size"] for row in newest} == {shop.sealed.newest.size}
    for directory in ("one", "two"):
        proof = tmp_path / directory / "artifact.json.tlog-proof"
        checked = shop("check", str(proof), str(shop.artifact))
        assert checked.returncode == 0, checked.stdout
        assert "this is the record of" in checked.stdout
        assert shop.json("check", str(proof), str(shop.artifact))["findings"] == []


def test_what_is_not_sealed_yet_is_named_and_can_be_proven_a_minute_later(shop: Shop, tmp_path: Path) -> None:
    run = shop.put()
    shop.sealed.runs.writer.attach(make_link(run))
    done = shop("prove", run.run_id, "-o", str(tmp_path / "proof"))
    assert done.returncode == 6
    assert done.stderr.count("not sealed yet: ") == 2
    shop.sealed.seal()
    assert shop("prove", run.run_id, "-o", str(tmp_path / "proof")).returncode == 0
    assert shop("prove", "nowhere").returncode == 4


def test_a_changed_file_another_proof_or_another_key_is_not_proven(shop: Shop, tmp_path: Path) -> None:
    shop("prove", shop.run.run_id, "-o", str(tmp_path / "proof"))
    proof = tmp_path / "proof/artifact.json.tlog-proof"
    good = proof.read_bytes()
    other = tmp_path / "other.json"
    other.write_bytes(shop.artifact.read_bytes() + b" ")
    assert kinds(shop.json("check", str(proof), str(other), code=7)) == {"modified"}
    spoil(proof, good.replace(b"index 0\n", b"index 1\n"))
    assert kinds(shop.json("check", str(proof), str(shop.artifact), code=7)) == {"inconsistent"}
    spoil(proof, good)
    stranger = piped("audit", "keygen", str(tmp_path / "s.pem"), home=shop.home).stdout.strip()
    found = shop.json("check", str(proof), str(shop.artifact), "--key", stranger, code=7)
    assert kinds(found) == {"unknown_key"}
    nobody = shop("check", str(proof), str(shop.artifact), key=False)
    assert nobody.returncode == 0
    assert "anybody could have made this proof" in nobody.stdout
    assert shop("check", str(proof), str(tmp_path / "none")).returncode == 6
    parsed = InclusionProof.parse(good)
    assert Note.parse(parsed.note.to_bytes()) == parsed.note


@pytest.mark.timeout(120)
def test_a_pack_is_checked_in_an_empty_directory_by_one_file_and_python_alone(
    shop: Shop, tmp_path: Path
) -> None:
    """The way of a stranger: unzip, sha256sum, and the one file, with nothing of ours on the path."""
    made = [tmp_path / "one.zip", tmp_path / "two.zip"]
    for number, file in enumerate(made):
        done = piped("runs", "pack", shop.run.run_id, "-o", str(file), home=shop.home)
        assert done.returncode == 0, done.stderr
        if not number:
            shop.sealed.grow(30)
    assert made[0].read_bytes() == made[1].read_bytes()
    script = piped("audit", "script", home=shop.home)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "verifier.py").write_text(script.stdout)
    (empty / "log.vkey").write_text(f"{shop.vkey}\n")

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        # Its environment names nothing of ours, and -I keeps the current directory off its path.
        bare = environment() | {"PATH": "/usr/bin:/bin"}
        return subprocess.run(
            words, cwd=empty, env=bare, capture_output=True, text=True, check=False, timeout=60
        )

    assert ran("unzip", "-q", str(made[0]), "-d", "pack").returncode == 0
    summed = subprocess.run(
        ["sha256sum", "--quiet", "-c", "MANIFEST.sha256"], cwd=empty / "pack", check=False, timeout=60
    )
    assert summed.returncode == 0
    proofs = sorted((empty / "pack/proof").rglob("*.tlog-proof"))
    assert len(proofs) == 2
    for proof in proofs:
        name = proof.relative_to(empty / "pack/proof").as_posix().removesuffix(".tlog-proof")
        done = ran(
            sys.executable, "-I", "verifier.py", "check", str(proof), f"pack/{name}", "--key", "log.vkey"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "unchanged" in done.stdout
    spoil(empty / "pack/artifact.json", shop.artifact.read_bytes().replace(b"GREEN", b"green"))
    done = ran(
        *(sys.executable, "-I", "verifier.py", "check", "pack/proof/artifact.json.tlog-proof"),
        *("pack/artifact.json", "--key", "log.vkey"),
    )
    assert done.returncode == 7
    assert "modified" in done.stdout
    whole = ran(sys.executable, "-I", "verifier.py", "verify", str(shop.runs_dir), "--key", "log.vkey")
    assert whole.returncode == 0, whole.stdout


@pytest.mark.parametrize(
    ("key", "readers"),
    [
        ("_log/checkpoints/000/000/000/003", {"status", "timestamps", "witness"}),
        ("_log/tile/0/000.p/3", {"witness"}),
        ("_log/tile/entries/000.p/3", {"status"}),
    ],
)
def test_a_part_of_the_log_that_fills_any_memory_is_damage(
    shop: Shop, tmp_path: Path, key: str, readers: set[str]
) -> None:
    """A sparse file of 64 GiB takes no room on the disk."""
    witness = tmp_path / "w.pem"
    assert shop("keygen", str(witness), "--name", "w.example/w1").returncode == 0
    words = {
        "status": ("status",),
        "timestamps": ("timestamps",),
        "witness": ("witness", str(shop.runs_dir), "--key", str(witness), "--state", str(tmp_path / "seen")),
    }
    spoil(shop.runs_dir / key, b"")
    os.truncate(shop.runs_dir / key, 1 << 36)
    for name in readers:
        done = shop(*words[name], *(["--once"] if name == "witness" else []))
        assert done.returncode == 7, name
        assert f"{key} is corrupt: it has {1 << 36} bytes" in " ".join(done.stderr.split())
    assert shop("verify").returncode == 7


@pytest.mark.parametrize("holds", ["a file", "nothing"])
def test_the_checkpoint_before_is_not_taken_for_the_newest_where_a_directory_stands(
    shop: Shop, tmp_path: Path, holds: str
) -> None:
    witness = tmp_path / "w.pem"
    assert shop("keygen", str(witness), "--name", "w.example/w1").returncode == 0
    shop.sealed.grow()
    newest = shop.runs_dir / checkpoint_key(shop.sealed.newest.size)
    newest.unlink()
    (newest / "below").mkdir(parents=True)
    if holds == "a file":
        (newest / "below" / "x").write_bytes(b"x")
    for words in (
        ("status",),
        ("timestamps",),
        ("witness", str(shop.runs_dir), "--key", str(witness), "--state", str(tmp_path / "seen"), "--once"),
        ("prove", shop.run.run_id, "-o", str(tmp_path / "proof"), "--newest"),
    ):
        done = shop(*words)
        assert done.returncode == 7, words
        assert {"a file": "it is no checkpoint, and stands", "nothing": "not a regular file"}[
            holds
        ] in done.stderr
    assert not (tmp_path / "seen" / "checkpoint").exists()


def test_no_key_that_a_store_names_is_believed_to_be_an_earlier_one(shop: Shop, tmp_path: Path) -> None:
    """Who can write to the store, and has no key, writes a log in which a key of his introduces ours."""
    evil = new_signer(shop.sealed.origin)
    spoil(shop.artifact, shop.artifact.read_bytes().replace(b"GREEN", b"green"))
    shutil.rmtree(shop.runs_dir / "_log")
    day = datetime.now(UTC).date()
    act = f"_acts/{day}/{new_uuid7()}_begun.json"
    about = {"introduced_by": evil.vkey, "trusts": shop.vkey, "introduction": introduce(evil, shop.vkey)}
    shop.sealed.store.create(act, json.dumps({"kind": "key_rotation", "about": about}).encode())
    SealedStore(shop.runs_dir, evil).seal(trusts={act: shop.vkey})
    assert "unknown_key" in kinds(shop.json("verify", "--no-state", code=7))
    key, data = f"{day}/{shop.run.run_id}.json", shop.artifact.read_bytes()
    prover = Prover(shop.sealed.store)
    ((index, _),) = prover.find({key: None})
    forged = tmp_path / "forged.tlog-proof"
    forged.write_bytes(prover.prove(index, Stored(key, sha256_hex(data))).to_bytes())
    assert kinds(shop.json("check", str(forged), str(shop.artifact), code=7)) == {"unknown_key"}


def test_earlier_keys_are_those_in_the_file_beside_the_key_and_it_must_be_its(
    shop: Shop, tmp_path: Path
) -> None:
    public = tmp_path / "log.pem.pub"
    earlier = new_signer(shop.sealed.origin).vkey
    public.write_text(f"{shop.vkey}\n{earlier}\n")
    public.chmod(0o644)
    assert shop("key").stdout.split() == [shop.vkey, earlier]
    assert shop.json("key") == {"vkey": shop.vkey, "name": shop.sealed.origin, "earlier": [earlier]}
    # By value there is no file beside it.
    by_value = piped("audit", "key", home=shop.home, RMOS_AUDIT_KEY=shop.key.read_text())
    assert by_value.stdout.split() == [shop.vkey]
    public.chmod(0o664)
    assert "written by others" in shop("key").stderr
    public.chmod(0o644)
    for text, reason in (
        (f"{earlier}\n{shop.vkey}\n", "is not the public half of the key beside it"),
        (f"{shop.vkey}\n{new_signer('another').vkey}\n", "holds a key that is none of"),
        (
            f"{shop.vkey}\n{new_signer(shop.sealed.origin, KeyKind.COSIGNATURE).vkey}\n",
            "holds a key that is none",
        ),
        (f"{shop.vkey}\nkey\n", "one on each line"),
        ("", "one on each line"),
        ("x" * 20_000, "is no file of public keys"),
    ):
        public.write_text(text)
        for words in (("key",), ("verify",), ("check", "proof", "file")):
            refused = shop(*words)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert reason in refused.stderr
    # One key may sign the logs of two stores; the file is of the other.
    public.write_text(f"{new_signer('another').vkey}\n{earlier}\n")
    assert shop("key").stdout.split() == [shop.vkey]
    public.unlink()
    assert shop("key").stdout.split() == [shop.vkey]
    assert shop.json("verify")["findings"] == []
    os.mkfifo(public)
    assert "is no file of public keys" in shop("key").stderr


# Time stamps


def test_time_stamps_are_listed_and_held_against_their_checkpoints(shop: Shop, tmp_path: Path) -> None:
    assert shop.json("timestamps") == []
    authority = Authority(tmp_path / "tsa")
    text = shop.sealed.newest.text.encode()
    size = shop.sealed.newest.size
    shop.sealed.store.create(timestamp_key(size), authority.reply(stamp_query(text).der))
    unproven = shop("timestamps", "--json")
    assert "not proven" in unproven.stderr
    (row,) = json.loads(unproven.stdout)
    assert (row["size"], row["signature"], row["problem"]) == (size, "not looked at", None)
    (row,) = shop.json("timestamps", "--tsa-cert", str(authority.ca))
    assert (row["signature"], row["stamped_at_utc"][:4]) == ("proven", str(datetime.now(UTC).year))
    # As the verifier has it, a token is no extra file.
    assert shop.json("verify")["findings"] == []
    other = Authority(tmp_path / "other")
    refused = shop("timestamps", "--tsa-cert", str(other.ca))
    assert refused.returncode == 7
    assert "not signed by an authority" in refused.stderr
    shop.sealed.grow()
    # The token of the last checkpoint under the name of the next.
    token = shop.sealed.store.get(timestamp_key(size)) or b""
    shop.sealed.store.create(timestamp_key(shop.sealed.newest.size), token)
    wrong = shop.json("timestamps", "--tsa-cert", str(authority.ca), code=7)
    assert [row["problem"] is None for row in wrong] == [True, False]
    assert shop("timestamps", "--tsa-cert", str(tmp_path / "none.pem")).returncode == 2


def test_a_stranger_checks_a_time_stamp_by_openssl(shop: Shop, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tsa")
    size = shop.sealed.newest.size
    shop.sealed.store.create(
        timestamp_key(size), authority.reply(stamp_query(shop.sealed.newest.text.encode()).der)
    )
    checkpoint = shop.runs_dir / checkpoint_key(size)
    (tmp_path / "text").write_bytes(b"".join(checkpoint.read_bytes().splitlines(keepends=True)[:3]))
    done = subprocess.run(
        [
            *("openssl", "ts", "-verify", "-in", str(shop.runs_dir / timestamp_key(size))),
            *("-data", "text", "-CAfile", str(authority.ca)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Verification: OK" in done.stdout + done.stderr
    assert (shop.runs_dir / CHECKPOINTS).is_dir()
