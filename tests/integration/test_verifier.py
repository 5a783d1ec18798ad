"""The verifier alone, over HTTP, with a memory, with keys that change, and with the proof of one record."""

from __future__ import annotations

import ast
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from rmos_shared.auditlog import sealer
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.note import Signer
from rmos_shared.auditlog.proof import prove
from rmos_shared.ids import new_uuid7
from support import plant, sealed
from support.http_server import Call, HttpServer, drips
from support.sealed_store import SealedStore, new_store, sealed_store
from support.threaded_server import ThreadedServer

WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
WITNESS_KEY = plant.vkey(plant.WITNESS, 4, WITNESS)
NEXT = Ed25519PrivateKey.from_private_bytes(b"n" * 32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    return sealed_store(tmp_path_factory.mktemp("base") / "store", 200, per_seal=60)


@pytest.fixture
def copy(base: SealedStore, tmp_path: Path) -> plant.Copy:
    plant.linked(base.root, tmp_path / "copy")
    return plant.Copy(tmp_path / "copy", base.private, WITNESS)


class Runner:
    """Runs the verifier in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = verifier.main([str(word) for word in words])
        out = self._capsys.readouterr()
        return code, out.out, out.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


# -- alone ----------------------------------------------------------------------------------------------


def test_it_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in names}
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


def test_a_copy_of_the_file_is_enough(base: SealedStore, copy: plant.Copy, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(verifier.__file__, alone / "verifier.py")
    command = [
        sys.executable,
        "-I",
        "verifier.py",
        "verify",
        str(copy.root),
        "--key",
        base.vkey,
        "--jobs",
        "2",
    ]

    def verify() -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(alone)}
        return subprocess.run(
            command, cwd=alone, capture_output=True, text=True, timeout=60, check=False, env=environment
        )

    done = verify()
    assert (done.returncode, done.stderr) == (0, "")
    assert "findings       none" in done.stdout
    (key,) = plant.modified_artifact(copy)
    done = verify()
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.startswith(f"modified: {key}: its SHA-256 is not ")
    # Nothing is left, and nothing was compiled beside it.
    assert sorted(path.name for path in alone.iterdir()) == ["verifier.py"]


def test_several_processes_find_what_one_finds(tmp_path: Path, run: Runner) -> None:
    big = sealed_store(tmp_path / "big", 700)
    planted = plant.Copy(big.root, big.private, WITNESS)
    plant.missing_day(planted)
    plant.extra_back_dated(planted)
    plant.inconsistent_origin(planted)
    words = ("verify", big.root, "--key", big.vkey, "--json")
    one, many = run(*words, "--jobs", "1"), run(*words, "--jobs", "3")
    assert one[0] == many[0] == 7
    assert json.loads(one[1])["findings"] == json.loads(many[1])["findings"]


def test_wrong_usage_is_told_without_a_traceback(base: SealedStore, tmp_path: Path, run: Runner) -> None:
    (tmp_path / "none").write_text("no key\n")
    store = base.root
    for words in (
        ("verify", store, "--key", "nonsense"),
        ("verify", store, "--key", tmp_path / "none"),
        ("verify", store, "--key", WITNESS_KEY),
        ("verify", store, "--witness", base.vkey),
        ("verify", store, "--key", base.vkey.replace("+", "+0", 1)),
        ("verify", store, "--since", tmp_path / "gone"),
        ("verify", store, "--state", tmp_path / "none"),
        ("verify", store, "--state", tmp_path / "no" / "such"),
        ("verify", "http://"),
        ("verify", "http://host:port/"),
        ("verify", "http://user:secret@host/"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert err.startswith("error: ")
        assert "secret" not in err


def test_keys_may_stand_in_a_file(base: SealedStore, tmp_path: Path, run: Runner) -> None:
    (tmp_path / "keys").write_text(f"# of the shop\n{base.vkey}\n\n")
    assert run("verify", base.root, "--key", tmp_path / "keys")[0] == 0


def test_an_unsigned_log_is_told_as_what_it_is(tmp_path: Path, run: Runner) -> None:
    made = sealed_store(tmp_path / "unsigned", 20, signed=False)
    code, out, _ = run("verify", made.root)
    assert code == 0
    assert "signed by      nobody" in out
    assert "so anybody could have written this log" in out
    code, out, _ = run("verify", made.root, "--key", plant.vkey(made.origin, 1, made.private))
    assert code == 7
    assert "unknown key: " in out


def test_what_is_adopted_is_counted_and_is_no_finding(
    copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    seals = copy.seals()
    seals[0] = [*(plant.changed(line, found="adopted") for line in seals[0][:-1]), seals[0][-1]]
    copy.write_log(seals)
    code, out, _ = run("verify", copy.root, "--key", base.vkey, "--json")
    assert code == 0
    assert json.loads(out)["summary"]["adopted"] == len(seals[0]) - 1


def test_adoption_that_takes_several_seals_is_no_finding(
    tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer, "MOST_RECORDS", 20)
    made, now = new_store(tmp_path / "store"), datetime.now(UTC) - timedelta(minutes=10)
    works = sealer.Sealer(made.store, made.origin, made.signer, heartbeat=timedelta(days=1))
    for number in range(50):
        at = now - timedelta(hours=number + 1)
        made.publish(f"{at:%Y-%m-%d}/{new_uuid7(at)}.json", b"{}", at, 0)
    seals = 0
    for receipts in (5, 20, 0, 20, 20, 3, 0, 0):
        now += timedelta(seconds=1)
        told = [
            made.publish(f"{now:%Y-%m-%d}/{new_uuid7(now)}.json", b"{}", now, number)
            for number in range(receipts)
        ]
        seals += works.seal(told, now=now, feed_at_end=True) is not None
    code, out, _ = run("verify", made.root, "--key", made.vkey, "--json", "--live")
    summary = json.loads(out)["summary"]
    assert (code, summary["adopted"], summary["seals"]) == (0, 50, seals)
    assert summary["records"] == 50 + 68


# -- a live store -----------------------------------------------------------------------------------------


def test_a_record_that_was_just_written_is_no_finding_and_is_named(
    copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    now = datetime.now(UTC)
    old, run_id = copy.artifacts()[0].removesuffix(".json"), new_uuid7(now)
    young = [
        f"{now:%Y-%m-%d}/{run_id}.json",
        f"{now:%Y-%m-%d}/of-no-uuid.json",
        f"{old}_advisory_{run_id}.json",
        f"_reviews/{old}/{run_id}.json",
        f"_attempts/{old}/{run_id}_{round(now.timestamp() * 1000)}.json",
        f"_acts/{now:%Y-%m-%d}/{run_id}_begun.json",
        f"_acts/{old}_ended.json",
        f"_batches/{old}.json",
        "_attachments/ab/" + "ab" * 32 + ".nc",
    ]
    for key in young:
        copy.put(key, b"{}")
    code, out, _ = run("verify", copy.root, "--key", base.vkey, "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    assert json.loads(out)["summary"]["not_sealed_yet"] == len(young)
    assert {one["key"] for one in json.loads(out)["young"]} == set(young)
    code, out, _ = run("verify", copy.root, "--key", base.vkey)
    assert code == 0
    assert all(f"{key}, written at 2" in out for key in young)


def test_a_record_with_the_name_of_another_time_was_not_just_written(
    copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    old = copy.artifacts()[0].removesuffix(".json")[:-4] + "beef"
    run_id, soon = old.rpartition("/")[2], new_uuid7(datetime.now(UTC) + timedelta(days=2))
    planted = {
        f"{old}.json",
        f"{old.partition('/')[0]}/of-no-uuid.json",
        f"{datetime.now(UTC):%Y-%m-%d}/{soon}.json",
        f"_reviews/{old}/{run_id}.json",
        f"_attempts/{old}/{run_id}_1000000000000.json",
        f"_acts/{old}_begun.json",
    }
    for key in planted:
        copy.put(key, b"{}")
    code, out, _ = run("verify", copy.root, "--key", base.vkey, "--json")
    assert code == 7
    assert {(one["kind"], one["key"]) for one in json.loads(out)["findings"]} == {
        ("unsealed", key) for key in planted
    }


def test_what_waits_for_the_next_seal_is_unsealed_and_not_extra(tmp_path: Path, run: Runner) -> None:
    """The newest seal took the first receipts of a backlog, and says so."""
    made, now = new_store(tmp_path / "store"), datetime.now(UTC)
    works = sealer.Sealer(made.store, made.origin, made.signer, heartbeat=timedelta(hours=1))
    works.seal([], now=now - timedelta(minutes=20), feed_at_end=True)
    times = [now - timedelta(minutes=10 - number) for number in range(6)]
    backlog = [made.publish(f"{at:%Y-%m-%d}/{new_uuid7(at)}.json", b"{}", at, 1) for at in times]
    works.seal(backlog[:3], now=now - timedelta(seconds=10), feed_at_end=False)
    code, out, _ = run("verify", made.root, "--key", made.vkey, "--json")
    assert code == 7
    told = [(one["kind"], one["key"]) for one in json.loads(out)["findings"]]
    assert sorted(told) == sorted(("unsealed", receipt.key) for receipt in backlog[3:])


@pytest.fixture
def live(tmp_path: Path) -> plant.Copy:
    """A store that was sealed a moment ago."""
    shop = sealed.SealedStore(tmp_path / "live", Signer("x", NEXT))
    shop.signer = Signer(shop.origin, NEXT)
    shop.grow(3)
    return plant.Copy(shop.root, NEXT, WITNESS)


def _findings(run: Runner, copy: plant.Copy, *words: object) -> set[tuple[str, str]]:
    out = run("verify", copy.root, "--key", plant.vkey(copy.origin, 1, NEXT), "--json", *words)[1]
    return {(one["kind"], one["key"]) for one in json.loads(out)["findings"]}


def test_a_seal_that_a_sealer_has_just_begun_is_no_finding(live: plant.Copy, run: Runner) -> None:
    record = "_batches/a.json"
    live.put(record, b"{}", time.time() - 600)  # its receipt waited
    now = verifier.iso(time.time())
    entry = {"at": now, "key": record, "sha256": hashlib.sha256(b"{}").hexdigest(), "size": 2, "v": 1}
    plant.pending(live, before=(plant.dumped(entry),))
    size = live.sizes()[-1]
    live.put(f"_log/tile/0/000.p/{size + 2}", b"x")
    assert _findings(run, live, "--live") == set()
    live.put(record, b"[]", time.time() - 600)
    assert _findings(run, live, "--live") == {("modified", record)}


def test_the_entries_of_a_seal_that_was_begun_are_looked_at(live: plant.Copy, run: Runner) -> None:
    late = plant.dumped(
        {"at": "2021-03-03T12:00:00.000Z", "key": "x.json", "sha256": "0" * 64, "size": 2, "v": 1}
    )
    key = plant.pending(live, before=(late, b"nonsense"))
    assert _findings(run, live) == {("clock", "x.json"), ("missing", "x.json"), ("inconsistent", key)}


def test_a_seal_of_the_future_is_found(live: plant.Copy, run: Runner) -> None:
    key = plant.pending(live, at="9000-01-01T00:00:00.000Z")
    assert _findings(run, live) == {("clock", key), ("gap", key)}
    live.write_log(live.seals())
    assert len(live.sizes()) == 2
    assert _findings(run, live) == {("clock", key), ("gap", key)}


# -- keys that change -----------------------------------------------------------------------------------


def _rotated(copy: plant.Copy) -> str:
    seals = copy.seals()
    key = plant.vkey(copy.origin, 1, NEXT)
    index = next(n for n, seal in enumerate(seals) if any(b'"_acts/' in line for line in seal))
    act = next(at for at, line in enumerate(seals[index]) if b'"_acts/' in line)
    seals[index][act] = plant.changed(seals[index][act], trusts=key)
    until = sum(map(len, seals[: index + 1]))
    copy.write_log(
        seals,
        lambda size, text: plant.signed(text, copy.origin, copy.private if size <= until else NEXT),
    )
    return key


def test_a_key_that_the_old_one_introduced_is_trusted(
    copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    new = _rotated(copy)
    assert run("verify", copy.root, "--key", base.vkey)[0] == 0
    assert run("verify", copy.root, "--key", base.vkey, "--key", new)[0] == 0
    code, out, _ = run("verify", copy.root, "--key", new)
    assert code == 7
    assert "unknown key" in out


def test_a_seal_is_signed_by_who_was_trusted_before_it(
    copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    _rotated(copy)
    starts = [0, *copy.sizes()]
    index = next(n for n, seal in enumerate(copy.seals()) if any(b'"trusts"' in line for line in seal))

    def log(first_of_next: int) -> tuple[int, list[str]]:
        def sign(size: int, text: str) -> bytes:
            end = starts.index(size)
            first = first_of_next if text.startswith("rmos-runs seal\n") else index + 2
            return plant.signed(text, copy.origin, NEXT if end >= first else copy.private)

        copy.write_log(copy.seals(), sign)
        code, out, _ = run("verify", copy.root, "--key", base.vkey, "--json")
        return code, [f"{one['kind']} {one['key']}" for one in json.loads(out)["findings"]]

    # One that the old key began and the new one finished, and the other way round.
    assert log(index + 2) == (0, [])
    assert log(index + 3) == (0, [])
    # One that introduces the key that signs it.
    assert log(index + 1) == (7, [f"inconsistent _log/seals/{plant.grouped(starts[index])}"])


def test_a_seal_of_an_unsigned_log_is_a_note_without_a_signature(tmp_path: Path, run: Runner) -> None:
    made = sealed_store(tmp_path / "unsigned", 20, signed=False)
    copy = plant.Copy(made.root, made.private, WITNESS)
    key = copy.files("_log/seals/*/*/*/*")[-1]
    good = copy.read(key)
    assert run("verify", copy.root)[0] == 0
    signature = plant.signed(good[:-1].decode(), copy.origin, NEXT)
    for bad in (
        signature,
        good[:-1],
        good + b"x\n",
        good.replace(copy.origin.encode(), b"rmos-runs/" + b"0" * 32),
    ):
        copy.put(key, bad)
        code, out, _ = run("verify", copy.root)
        assert code == 7
        assert out.startswith(f"inconsistent: {key}: ")


def test_a_key_that_introduces_itself_is_not(copy: plant.Copy, base: SealedStore, run: Runner) -> None:
    _rotated(copy)
    copy.write_log(copy.seals(), lambda _, text: plant.signed(text, copy.origin, NEXT))
    code, out, _ = run("verify", copy.root, "--key", base.vkey, "--json")
    assert code == 7
    assert json.loads(out)["summary"]["findings"].keys() == {"unknown_key"}


# -- with a memory ----------------------------------------------------------------------------------------


def test_since_leaves_old_files_unread_and_finds_what_is_new(
    copy: plant.Copy, base: SealedStore, tmp_path: Path, run: Runner
) -> None:
    since = tmp_path / "since"
    since.write_bytes(copy.read(f"_log/checkpoints/{plant.grouped(base.sizes[2])}"))
    words = ("verify", copy.root, "--key", base.vkey, "--json")
    whole, part = run(*words), run(*words, "--since", since)
    assert (whole[0], part[0]) == (0, 0)
    assert json.loads(part[1])["summary"]["files_read"] < json.loads(whole[1])["summary"]["files_read"] - 100
    assert "the log continues what was remembered" in part[1]
    (old,) = plant.modified_artifact(copy)
    assert run(*words, "--since", since)[0] == 0
    (new,) = plant.modified_link(copy)
    extra = plant.extra_back_dated(copy)
    told = json.loads(run(*words, "--since", since)[1])["findings"]
    assert {(one["kind"], one["key"]) for one in told} == {
        ("modified", new),
        *(("extra", key) for key in extra),
    }
    assert old != new


def test_state_is_written_whole_and_goes_on(
    copy: plant.Copy, base: SealedStore, tmp_path: Path, run: Runner
) -> None:
    state = tmp_path / "state" / "checkpoint"
    state.parent.mkdir()
    state.write_bytes(copy.read(f"_log/checkpoints/{plant.grouped(base.sizes[0])}"))
    assert run("verify", copy.root, "--key", base.vkey, "--state", state)[0] == 0
    assert state.read_bytes() == copy.read(f"_log/checkpoints/{plant.grouped(base.sizes[-1])}")
    assert [path.name for path in state.parent.iterdir()] == ["checkpoint"]
    other = sealed_store(tmp_path / "other", 20, seed=8)
    code, out, _ = run("verify", other.root, "--key", other.vkey, "--state", state)
    assert code == 7
    assert out.startswith(f"inconsistent: {state}: it is a checkpoint of {base.origin}")
    assert state.read_bytes() == copy.read(f"_log/checkpoints/{plant.grouped(base.sizes[-1])}")


def test_a_witness_that_said_nothing_is_missing(base: SealedStore, run: Runner) -> None:
    code, out, _ = run("verify", base.root, "--key", base.vkey, "--witness", WITNESS_KEY)
    assert code == 7
    assert out.startswith("missing: _log/cosignatures/: witness.example+")


# -- over HTTP --------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def address(copy: plant.Copy) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(copy.root))
    server = ThreadedServer(handler)
    server.start()
    yield f"{server.url}/"
    server.stop()


def test_files_that_are_served_are_verified(
    address: str, copy: plant.Copy, base: SealedStore, run: Runner
) -> None:
    plant.cosign(copy, base.sizes[1])
    words = ("verify", address, "--key", base.vkey, "--jobs", "1", "--json", "--witness", WITNESS_KEY)
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    summary = json.loads(out)["summary"]
    assert summary["entries"] == base.sizes[-1]
    assert "extra and unsealed files: by an address nothing can be listed" in summary["not_looked_at"]
    planted = [
        ("modified", plant.modified_link(copy)),
        ("missing", plant.missing_attachment(copy)),
        ("modified", plant.modified_longer(copy)),
        ("bad_signature", plant.bad_signature_bit(copy)),
    ]
    plant.extra_back_dated(copy)
    told = json.loads(run(*words)[1])["findings"]
    assert {(one["kind"], one["key"]) for one in told} == {
        (kind, key) for kind, keys in planted for key in keys
    }


def _silent(call: Call) -> None:
    call.stop.wait(20)


def _continues(call: Call) -> None:
    with suppress(OSError):
        while not call.stop.is_set():
            call.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _answer(head: bytes, body: bytes = b"", times: int = 1) -> HttpServer:
    def act(call: Call) -> None:
        call.send(head)
        for _ in range(times):
            if call.stop.is_set():
                return
            call.send(body)

    return HttpServer(act)


@pytest.mark.parametrize(
    "fault",
    [
        "refuses",
        "an error",
        "no HTTP",
        "never answers",
        "never ends",
        "never begins",
        "drips its head",
        "drips its body",
        "drips its chunks",
    ],
)
def test_a_server_that_fails_is_away(fault: str, run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "SECONDS", 0.2)
    server = {
        "refuses": lambda: _answer(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
        "an error": lambda: _answer(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        "no HTTP": lambda: _answer(b"nonsense\r\n\r\n"),
        "never answers": lambda: HttpServer(_silent),
        "never begins": lambda: HttpServer(_continues),
        "drips its head": lambda: HttpServer(drips(b"HTTP/1.1 200 OK\r\nX: ", b"a", each_seconds=0.05)),
        "drips its body": lambda: HttpServer(drips(b"HTTP/1.1 200 OK\r\n\r\n", b"a", each_seconds=0.05)),
        "drips its chunks": lambda: HttpServer(
            drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", each_seconds=0.05)
        ),
        "never ends": lambda: _answer(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536, 100_000),
    }[fault]()
    with server:
        code, out, err = run("verify", server.url, "--jobs", "1")
    if fault == "never ends":
        # Files that are all too large are none of a log: that is found, in bounded time and memory.
        assert code == 7
    else:
        assert (code, out) == (6, "")
        assert err.startswith("error: _store.json cannot be fetched: ")


# -- one record by its proof --------------------------------------------------------------------------------


@pytest.fixture
def proof(copy: plant.Copy, base: SealedStore) -> tuple[Path, Path]:
    log = AuditLog(base.store, base.origin)
    key = copy.artifacts()[5]
    index = next(n for n, line in enumerate(log.entries()) if key.encode() in line)
    path = copy.root.with_name("one.tlog-proof")
    path.write_bytes(prove(log, index).to_bytes())
    return path, copy.root / key


def test_a_proof_says_what_a_file_is(proof: tuple[Path, Path], base: SealedStore, run: Runner) -> None:
    path, file = proof
    code, out, _ = run("check", path, file, "--key", base.vkey)
    assert code == 0
    key = f"{file.parent.name}/{file.name}"
    assert out.startswith(f"this is the record of {key}, in the log since 20")
    assert ", unchanged; entry " in out
    code, out, _ = run("check", path, file)
    assert code == 0
    assert "no --key was given, so anybody could have made this proof" in out


def test_a_proof_says_what_is_wrong(
    proof: tuple[Path, Path], copy: plant.Copy, base: SealedStore, tmp_path: Path, run: Runner
) -> None:
    path, file = proof
    text = path.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes() + b" ")
    stranger = plant.vkey(base.origin, 1, NEXT)

    def kinds(data: bytes, *words: object) -> list[str]:
        path.write_bytes(data)
        code, out, err = run("check", path, *words, "--json")
        assert (code, err) == (7, "")
        assert json.loads(out)["proven"] is None
        return [one["kind"] for one in json.loads(out)["findings"]]

    assert kinds(text, other, "--key", base.vkey) == ["modified"]
    assert kinds(text, copy.root / copy.links()[0], "--key", base.vkey) == ["modified"]
    assert kinds(text, file, "--key", stranger) == ["unknown_key"]
    lines = text.split(b"\n")
    assert kinds(b"\n".join([*lines[:3], *lines[4:]]), file) == ["inconsistent"]
    index = int(lines[2].split()[1])
    assert kinds(text.replace(b"index %d" % index, b"index %d" % (index + 1)), file) == ["inconsistent"]
    head, _, encoded = text.rpartition(b" ")
    assert kinds(head + b" " + encoded.replace(encoded[20:24], b"AAAA"), file, "--key", base.vkey) == [
        "bad_signature"
    ]
    for garbage in (
        b"",
        b"\xff" * 100,
        text[: len(text) // 2],
        text + b"\n",
        text + lines[-2] + b"\n",
        text.replace(b"extra", b"other"),
    ):
        assert kinds(garbage, file) == ["inconsistent"]
    path.write_bytes(text)
    assert run("check", path, tmp_path / "gone", "--key", base.vkey)[0] == 6
    assert run("check", tmp_path / "gone", file, "--key", base.vkey)[0] == 2
