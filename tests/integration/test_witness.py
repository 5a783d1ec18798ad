"""The witness: what it signs, what it refuses, and that no kill makes it forget."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rmos_runs.auditor.key_file import make_key, named_signer
from rmos_runs.auditor.log_source import DirectorySource, TimedSource
from rmos_runs.auditor.witness import LogForked, LogKeyUnknown, LogRolledBack, Witness
from rmos_runs.auditor.witness_state import WitnessState
from rmos_shared.auditlog.checkpoint import Checkpoint
from rmos_shared.auditlog.layout import COSIGNATURES, checkpoint_key
from rmos_shared.auditlog.note import KeyKind, Note, NoteInvalid, Signer, Verifier, verified
from rmos_shared.clock import SystemClock
from rmos_shared.errors import Conflict, CorruptArtifact, SettingsInvalid, StoreUnavailable
from support import spawn
from support.command import RMOS, environment, piped
from support.sealed import SealedStore, new_signer

NAME = "witness.example/w1"


@pytest.fixture
def log(tmp_path: Path) -> SealedStore:
    sealed = SealedStore(tmp_path / "runs")
    sealed.grow(3)
    return sealed


@pytest.fixture
def signer() -> Signer:
    return new_signer(NAME, KeyKind.COSIGNATURE)


def witness(log: SealedStore, signer: Signer, state: Path, **options: Any) -> Witness:
    state.mkdir(exist_ok=True)
    return Witness(DirectorySource(log.root), signer, WitnessState(state), SystemClock(), **options)


def remembered(state: Path) -> Checkpoint | None:
    data = WitnessState(state).recall()
    return None if data is None else Checkpoint.parse_note(data)[0]


def test_it_cosigns_what_grew_and_keeps_both_signatures(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    one = witness(log, signer, tmp_path / "state", log_keys=[log.signer.verifier])
    first = one.look()
    assert (first.new, first.before) == (True, None)
    again = one.look()
    assert (again.new, again.cosigned) == (False, first.cosigned)
    log.grow(700)
    log.grow(1)
    second = one.look()
    assert second.before == first.cosigned.checkpoint if first.cosigned else False
    assert remembered(tmp_path / "state") == log.newest
    note = Note.parse(WitnessState(tmp_path / "state").recall() or b"")
    assert [signed.name for signed in verified(note, [log.signer.verifier, signer.verifier])] == [
        log.origin,
        NAME,
    ]


def test_of_a_large_log_it_reads_few_files(log: SealedStore, signer: Signer, tmp_path: Path) -> None:
    read: list[str] = []

    class Counting(DirectorySource):
        def get(self, key: str) -> bytes | None:
            read.append(key)
            return super().get(key)

    one = Witness(Counting(log.root), signer, WitnessState(tmp_path / "state"), SystemClock())
    (tmp_path / "state").mkdir()
    one.look()
    for _ in range(3):
        log.grow(2_000)
    read.clear()
    one.look()
    assert log.newest.size > 6_000
    assert len(read) < 12
    assert not any("entries" in key for key in read)


def test_a_log_that_went_another_way_is_not_signed_and_both_checkpoints_are_named(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    other = log.copy(tmp_path / "other")
    log.grow(5)
    seen = witness(log, signer, tmp_path / "state").look().cosigned
    assert seen is not None
    for records in (5, 300):  # of the same size first, then longer
        other.grow(records)
        if records == 5:
            # Same number of entries, and other times inside.
            assert other.newest.size == log.newest.size
        before = WitnessState(tmp_path / "state").recall()
        with pytest.raises(LogForked) as raised:
            witness(other, signer, tmp_path / "state").look()
        for checkpoint in (seen.checkpoint, other.newest):
            assert f"size {checkpoint.size} root {checkpoint.text.splitlines()[2]}" in str(raised.value)
        assert WitnessState(tmp_path / "state").recall() == before


def test_a_log_that_was_cut_or_is_gone_is_not_signed(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    old = log.copy(tmp_path / "old")
    log.grow(5)
    one = witness(log, signer, tmp_path / "state")
    one.look()
    with pytest.raises(LogRolledBack, match="entries were taken away"):
        witness(old, signer, tmp_path / "state").look()
    shutil.rmtree(log.root / "_log")
    with pytest.raises(LogRolledBack, match="no checkpoint any more"):
        one.look()
    another = SealedStore(tmp_path / "another")
    another.grow(50)
    with pytest.raises(LogForked, match="another log is in its place"):
        witness(another, signer, tmp_path / "state").look()


def test_a_checkpoint_that_its_tiles_do_not_make_is_not_signed(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    """The first one is trusted as it comes, but not if its own tiles contradict it."""
    (tile,) = (log.root / "_log/tile/0").glob("*.p/*")
    tile.chmod(0o640)
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    with pytest.raises(CorruptArtifact, match="not that of the log's tiles"):
        witness(log, signer, tmp_path / "state").look()
    tile.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        witness(log, signer, tmp_path / "state").look()
    assert remembered(tmp_path / "state") is None


def test_a_size_that_no_log_can_have_is_refused(log: SealedStore, signer: Signer, tmp_path: Path) -> None:
    class Huge(DirectorySource):
        def newest(self) -> bytes | None:
            return Note(Checkpoint(log.origin, 10**18, bytes(32)).text).to_bytes()

    (tmp_path / "state").mkdir()
    one = Witness(Huge(log.root), signer, WitnessState(tmp_path / "state"), SystemClock())
    with pytest.raises(CorruptArtifact, match="no log has that size"):
        one.look()


def test_only_the_logs_own_key_is_taken_where_it_is_given(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    stranger = new_signer(log.origin)
    with pytest.raises(LogKeyUnknown, match="--log-key"):
        witness(log, signer, tmp_path / "state", log_keys=[stranger.verifier]).look()
    keys = [stranger.verifier, log.signer.verifier]
    assert witness(log, signer, tmp_path / "state", log_keys=keys).look().new


def test_a_memory_that_was_changed_is_not_believed(log: SealedStore, signer: Signer, tmp_path: Path) -> None:
    one = witness(log, signer, tmp_path / "state")
    one.look()
    memory = WitnessState(tmp_path / "state").file
    text = memory.read_text()
    for spoilt in ("", text[:-9], text.replace("\n4\n", "\n3\n"), log.newest.text + "\n"):
        memory.write_text(spoilt)
        with pytest.raises(CorruptArtifact, match="restore it"):
            one.look()
    with pytest.raises(CorruptArtifact, match="right --key"):
        witness(log, new_signer(NAME, KeyKind.COSIGNATURE), tmp_path / "state").look()


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace", "sync directory"])
def test_an_error_at_any_step_of_remembering_leaves_the_old_memory_or_the_new(
    log: SealedStore, signer: Signer, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = witness(log, signer, tmp_path / "state")
    old = one.look().cosigned
    log.grow(2)
    calls = {"fsync": 0}

    def fails(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    def second_fails(_: int) -> None:
        calls["fsync"] += 1
        if calls["fsync"] == 2:
            fails()

    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(os, "open", fails)
        elif step == "write":
            patch.setattr("builtins.open", fails)
        elif step == "fsync":
            patch.setattr(os, "fsync", fails)
        elif step == "replace":
            patch.setattr(Path, "replace", fails)
        else:
            patch.setattr(os, "fsync", second_fails)
        with pytest.raises(StoreUnavailable, match="No space left"):
            one.look()
    assert old is not None
    assert remembered(tmp_path / "state") in {old.checkpoint, log.newest}
    assert one.look().cosigned is not None
    assert remembered(tmp_path / "state") == log.newest


def test_two_witnesses_never_share_a_memory(tmp_path: Path) -> None:
    with (
        WitnessState(tmp_path / "state").held(),
        pytest.raises(Conflict, match="another witness runs"),
        WitnessState(tmp_path / "state").held(),
    ):
        pass
    with WitnessState(tmp_path / "state").held():
        pass


def test_a_published_cosignature_is_found_by_its_key_and_stays(
    log: SealedStore, signer: Signer, tmp_path: Path
) -> None:
    one = witness(log, signer, tmp_path / "state")
    cosigned = one.look().cosigned
    assert cosigned is not None
    for _ in range(2):
        one.publish(cosigned, log.store)
    (key,) = log.store.list(COSIGNATURES)
    assert key.endswith(f"_{signer.verifier.key_id.hex()}")
    (signed,) = verified(Note.parse(log.store.get(key) or b""), [signer.verifier])
    assert signed.at == cosigned.at
    # Its state was lost: the same checkpoint signed anew, a second later, is no conflict.
    shutil.rmtree(tmp_path / "state")
    time.sleep(1.1)
    anew = witness(log, signer, tmp_path / "state")
    second = anew.look().cosigned
    assert second is not None
    anew.publish(second, log.store)
    assert len(list(log.store.list(COSIGNATURES))) == 1
    path = log.root / key
    path.chmod(0o640)
    path.write_bytes(b"x")
    with pytest.raises(CorruptArtifact, match="no cosignature of this witness"):
        anew.publish(second, log.store)


def test_a_read_that_hangs_ends_in_time_and_is_not_repeated_meanwhile(log: SealedStore) -> None:
    """A file system that hangs: the read cannot be called off, so no second one is begun beside it."""

    class Hanging(DirectorySource):
        begun = 0

        def get(self, key: str) -> bytes | None:
            self.begun += 1
            time.sleep(1.5)
            return super().get(key)

    inner = Hanging(log.root)
    source = TimedSource(inner, 0.1)
    assert source.newest() is not None
    with pytest.raises(StoreUnavailable, match="no answer within"):
        source.get(checkpoint_key(log.newest.size))
    with pytest.raises(StoreUnavailable, match="still gives no answer"):
        source.newest()
    assert inner.begun == 1


def test_a_key_knows_its_name_by_the_file_beside_it(tmp_path: Path) -> None:
    made = make_key(tmp_path / "w.pem", NAME, KeyKind.COSIGNATURE)
    assert named_signer(tmp_path / "w.pem", None, KeyKind.COSIGNATURE).vkey == made.vkey
    assert named_signer(tmp_path / "w.pem", "other", KeyKind.COSIGNATURE).name == "other"
    make_key(tmp_path / "v.pem", NAME, KeyKind.COSIGNATURE)
    (tmp_path / "v.pem.pub").replace(tmp_path / "w.pem.pub")
    with pytest.raises(SettingsInvalid, match="not the public half"):
        named_signer(tmp_path / "w.pem", None, KeyKind.COSIGNATURE)
    (tmp_path / "w.pem.pub").unlink()
    with pytest.raises(SettingsInvalid, match="give --name"):
        named_signer(tmp_path / "w.pem", None, KeyKind.COSIGNATURE)


_DIES = """
import os, sys
from pathlib import Path
from rmos_runs.auditor.key_file import named_signer
from rmos_runs.auditor.log_source import DirectorySource
from rmos_runs.auditor.witness import Witness
from rmos_runs.auditor.witness_state import WitnessState
from rmos_shared.auditlog.note import KeyKind, Signer
from rmos_shared.clock import SystemClock
from rmos_shared.store.local import LocalStore

root, state, key, step, after = sys.argv[1:]
owner, name = {
    "sign": (Signer, "sign"), "open": (os, "open"), "fsync": (os, "fsync"),
    "replace": (Path, "replace"), "publish": (LocalStore, "create"),
}[step]
inner = getattr(owner, name)

def dying(*words, **named):
    if after != "yes":
        os._exit(137)
    inner(*words, **named)
    os._exit(137)

signer = named_signer(Path(key), None, KeyKind.COSIGNATURE)
source = DirectorySource(Path(root))
witness = Witness(source, signer, WitnessState(Path(state)), SystemClock())
if step in {"open", "fsync"}:
    # Of the memory alone: the log is opened and read before.
    remember = WitnessState.remember
    def patched(self, note):
        setattr(owner, name, dying)
        return remember(self, note)
    WitnessState.remember = patched
else:
    setattr(owner, name, dying)
cosigned = witness.look().cosigned
witness.publish(cosigned, source.store)
"""


@pytest.mark.parametrize("after", ["no", "yes"])
@pytest.mark.parametrize("step", ["sign", "open", "fsync", "replace", "publish"])
def test_killed_before_or_after_each_step_it_remembers_what_anybody_may_have_seen(
    log: SealedStore, tmp_path: Path, step: str, after: str
) -> None:
    signer = make_key(tmp_path / "w.pem", NAME, KeyKind.COSIGNATURE)
    state = tmp_path / "state"
    old = witness(log, signer, state).look().cosigned
    fork = log.copy(tmp_path / "fork")
    fork.grow(9)
    log.grow(2)
    words = (str(log.root), str(state), str(tmp_path / "w.pem"), step, after)
    done = spawn.run([sys.executable, "-c", _DIES, *words], timeout=60, capture_output=True)
    assert done.returncode == 137, done.stderr
    assert old is not None
    memory = remembered(state)
    assert memory in {old.checkpoint, log.newest}
    if list(log.store.list(COSIGNATURES)):
        assert memory == log.newest
    if memory == log.newest:
        # Its signature may be anywhere by now, so it signs nothing of the fork.
        with pytest.raises((LogForked, LogRolledBack)):
            witness(fork, signer, state).look()
    # It goes on, and publishes what it remembers.
    again = witness(log, signer, state)
    cosigned = again.look().cosigned
    assert cosigned is not None
    again.publish(cosigned, log.store)
    assert remembered(state) == log.newest


# As a program


class Program:
    """``rmos audit witness`` of one key and one state."""

    def __init__(self, place: Path, log: SealedStore) -> None:
        self.log = log
        self.state = place / "state"
        self.key = place / "w.pem"
        self.signer = make_key(self.key, NAME, KeyKind.COSIGNATURE)
        self.home = place

    def words(self, *more: str, root: Path | None = None) -> list[str]:
        return [
            *("audit", "witness", str(root or self.log.root), "--key", str(self.key)),
            *("--state", str(self.state), *more),
        ]

    def once(self, *more: str, root: Path | None = None) -> subprocess.CompletedProcess[str]:
        return piped(*self.words("--once", *more, root=root), home=self.home)

    @contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        process = spawn.Popen[str](
            [*RMOS, *self.words(*more)],
            env=environment(RMOS_HOME=str(self.home)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)


@pytest.fixture
def program(log: SealedStore, tmp_path: Path) -> Program:
    return Program(tmp_path, log)


def until(check: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_command_cosigns_publishes_and_refuses(
    program: Program, log: SealedStore, tmp_path: Path
) -> None:
    vkey = log.signer.vkey
    first = program.once("--json", "--publish", "--log-key", vkey)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["outcome"], told["size"], told["size_before"]) == ("cosigned", log.newest.size, None)
    assert len(list(log.store.list(COSIGNATURES))) == 1
    assert "nothing new" in program.once().stdout
    other = log.copy(tmp_path / "other")
    log.grow()
    assert "it continues size" in program.once().stdout
    other.grow(2)
    refused = program.once(root=other.root)
    assert refused.returncode == 7
    assert f"size {log.newest.size} root" in refused.stderr
    assert f"size {other.newest.size} root" in refused.stderr
    assert program.once("--log-key", new_signer(log.origin).vkey).returncode == 7
    assert program.once(root=tmp_path / "nowhere").returncode == 6
    assert program.once("--publish", root=Path("http://127.0.0.1:1/x")).returncode in {2, 6}


def test_it_watches_waits_for_what_is_away_and_ends_at_ctrl_c(program: Program, log: SealedStore) -> None:
    away = log.root.with_name("away")
    with program.running("--every", "1") as process:
        until(lambda: remembered(program.state) == log.newest)
        log.root.rename(away)
        time.sleep(1.5)
        away.rename(log.root)
        log.grow()
        until(lambda: remembered(program.state) == log.newest)
        assert program.once().returncode == 5  # the state is held
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "waiting:" in said
    assert out.count("cosigned:") == 2


@pytest.mark.timeout(120)
def test_killed_anywhere_it_neither_forgets_nor_signs_two_histories(
    program: Program, log: SealedStore, tmp_path: Path
) -> None:
    """It is killed at random while the log grows, and is shown a fork now and then."""
    chance = random.Random(13)  # noqa: S311 - the same kills each time, as far as the machine lets it
    fork = log.copy(tmp_path / "fork")
    fork.grow(40)
    seen: list[Checkpoint] = []
    kills = 0
    for turn in range(14):
        log.grow(chance.randint(1, 40))
        with program.running("--every", "1", "--publish") as process:
            if turn % 3 == 0:
                until(lambda: remembered(program.state) == log.newest)
            else:
                time.sleep(chance.uniform(0.0, 0.35))
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        memory = remembered(program.state)
        if memory is not None:
            seen.append(memory)
            assert program.once(root=fork.root).returncode == 7
            assert remembered(program.state) == memory
    assert kills == 14
    # What it remembers only ever grew, and is of this log.
    assert [one.size for one in seen] == sorted(one.size for one in seen)
    reader = log.log.hash_reader()
    verifier = Verifier.parse(program.signer.vkey)
    signed = [Note.parse(log.store.get(key) or b"") for key in log.store.list(COSIGNATURES)]
    assert signed
    for note in signed:
        verified(note, [verifier])
        checkpoint = Checkpoint.parse(note.text)
        assert reader.root(checkpoint.size) == checkpoint.root
        # Nobody has seen a signature that its memory did not hold by then.
        assert checkpoint.size <= seen[-1].size
    assert all(reader.root(one.size) == one.root for one in seen)
    assert program.once("--publish").returncode == 0
    with pytest.raises(NoteInvalid):
        verified(signed[0], [new_signer(NAME, KeyKind.COSIGNATURE).verifier])
