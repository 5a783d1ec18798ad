"""Plants in a copy of a store each thing that the verifier must find.

Knows nothing of the verifier, and nothing of the program that writes the log: plain files, JSON, base64 and,
where a signature must be right, `cryptography`. The copy may be made of hard links: nothing is changed in
place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_DAY_SECONDS = 86_400


def linked(store: Path, place: Path) -> Path:
    """Copy a store by hard links, to ``place``, which is returned: what is put there takes a link's place."""
    subprocess.run(["cp", "-al", store, place], check=True, timeout=120)
    return place


@dataclass
class Copy:
    """A copy of a store, and the key that its log is signed with."""

    root: Path
    private: Ed25519PrivateKey
    witness: Ed25519PrivateKey

    @property
    def origin(self) -> str:
        return str("rmos-runs/" + json.loads((self.root / "_store.json").read_text())["store_id"])

    def files(self, pattern: str) -> list[str]:
        found = (path for path in self.root.glob(pattern) if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in found)

    def artifacts(self) -> list[str]:
        return [key for key in self.files("20*/*.json") if "_advisory_" not in key]

    def links(self) -> list[str]:
        return self.files("20*/*_advisory_*.json")

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def put(self, key: str, data: bytes, at: float | None = None) -> None:
        """Put a new file in the place of whatever is there, with its time."""
        path = self.root / key
        if at is None and path.exists():
            at = path.stat().st_mtime
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        if at is not None:
            os.utime(path, (at, at))

    def remove(self, key: str) -> None:
        (self.root / key).unlink()

    # -- the log, as anybody could write it who has the key -----------------------------------------

    def seals(self) -> list[list[bytes]]:
        """Return the lines of each seal, in order."""
        texts = (self.read(key).partition(b"\n\n")[0] for key in self.files("_log/seals/*/*/*/*"))
        return [text.split(b"\n")[3:] for text in texts]

    def sizes(self) -> list[int]:
        return [number(key) for key in self.files("_log/checkpoints/*/*/*/*")]

    def write_log(self, seals: list[list[bytes]], sign: Callable[[int, str], bytes] | None = None) -> None:
        """Write the whole log anew from lines: seals, bundles, tiles, checkpoints."""
        shutil.rmtree(self.root / "_log")
        sign = sign or (lambda _, text: signed(text, self.origin, self.private))
        lines: list[bytes] = []
        leaves: list[bytes] = []
        for seal in seals:
            end = len(lines) + len(seal)
            self.put(f"_log/seals/{grouped(len(lines))}", sign(end, seal_text(self.origin, len(lines), seal)))
            lines += seal
            leaves += [hashlib.sha256(b"\0" + line).digest() for line in seal]
            text = f"{self.origin}\n{len(lines)}\n{base64.b64encode(mth(leaves)).decode()}\n"
            self.put(f"_log/checkpoints/{grouped(len(lines))}", sign(len(lines), text))
            self._tiles(lines, leaves)

    def _tiles(self, lines: list[bytes], leaves: list[bytes]) -> None:
        bundles = [len(line).to_bytes(2, "big") + line for line in lines]
        self._row("entries", bundles)
        level, row = 0, leaves
        while row:
            self._row(str(level), row)
            level, row = level + 1, [mth(row[at : at + 256]) for at in range(0, len(row) - 255, 256)]

    def _row(self, level: str, row: list[bytes]) -> None:
        for at in range(0, len(row), 256):
            part = row[at : at + 256]
            key = f"_log/tile/{level}/{tile_number(at // 256)}" + (
                f".p/{len(part)}" if len(part) < 256 else ""
            )
            if not (self.root / key).exists():
                self.put(key, b"".join(part))


def seal_text(origin: str, start: int, lines: list[bytes]) -> str:
    """Return what is signed of a seal."""
    entries = b"".join(line + b"\n" for line in lines)
    return f"rmos-runs seal\n{origin}\n{start}\n" + entries.decode(errors="surrogateescape")


def mth(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash of leaf hashes, as RFC 6962 defines it."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:half]) + mth(leaves[half:])).digest()


def grouped(size: int) -> str:
    digits = f"{size:012d}"
    return "/".join((digits[:3], digits[3:6], digits[6:9], digits[9:]))


def number(key: str) -> int:
    return int("".join(key.split("/")[2:])[:12])


def tile_number(index: int) -> str:
    return f"{index:03d}" if index < 1000 else f"x{index // 1000:03d}/{index % 1000:03d}"


def key_id(name: str, kind: int, private: Ed25519PrivateKey) -> bytes:
    public = private.public_key().public_bytes_raw()
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def vkey(name: str, kind: int, private: Ed25519PrivateKey) -> str:
    public = base64.b64encode(bytes([kind]) + private.public_key().public_bytes_raw()).decode()
    return f"{name}+{key_id(name, kind, private).hex()}+{public}"


def signed(text: str, name: str, private: Ed25519PrivateKey) -> bytes:
    raw = text.encode(errors="surrogateescape")
    signature = base64.b64encode(key_id(name, 1, private) + private.sign(raw)).decode()
    return raw + f"\n\N{EM DASH} {name} {signature}\n".encode()


WITNESS = "witness.example"


def cosign(copy: Copy, size: int, at: int | None = None, text: str | None = None) -> str:
    """Let the witness sign a checkpoint (or another text); return the key."""
    text = text or copy.read(f"_log/checkpoints/{grouped(size)}").decode().partition("\n\n")[0] + "\n"
    at = int(time.time()) if at is None else at
    signature = copy.witness.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
    raw = key_id(WITNESS, 4, copy.witness) + at.to_bytes(8, "big") + signature
    key = f"_log/cosignatures/{grouped(size)}_{key_id(WITNESS, 4, copy.witness).hex()}"
    copy.put(key, f"{text}\n\N{EM DASH} {WITNESS} {base64.b64encode(raw).decode()}\n".encode())
    return key


def token(text: bytes) -> bytes:
    """Return what looks like a time stamp of a text."""
    body = b"\x02\x01\x00" + b"\x04\x20" + hashlib.sha256(text).digest() + b"signed"
    return b"\x30" + bytes([len(body)]) + body


def dumped(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def changed(line: bytes, **fields: Any) -> bytes:
    return dumped(json.loads(line) | fields)


def resealed(line: bytes, **fields: Any) -> bytes:
    entry = json.loads(line)
    return dumped(entry | {"seal": entry["seal"] | fields})


# -- what is planted: each returns the keys that must be named ----------------------------------------


def _edit(copy: Copy, key: str) -> set[str]:
    data = bytearray(copy.read(key))
    data[len(data) // 2] ^= 1
    copy.put(key, bytes(data))
    return {key}


def modified_artifact(copy: Copy) -> set[str]:
    return _edit(copy, copy.artifacts()[7])


def modified_link(copy: Copy) -> set[str]:
    return _edit(copy, copy.links()[-1])


def modified_review(copy: Copy) -> set[str]:
    return _edit(copy, copy.files("_reviews/*/*/*.json")[0])


def modified_attachment(copy: Copy) -> set[str]:
    return _edit(copy, copy.files("_attachments/*/*")[0])


def modified_act(copy: Copy) -> set[str]:
    return _edit(copy, copy.files("_acts/*/*_begun.json")[0])


def modified_with_its_own_hash(copy: Copy) -> set[str]:
    """An artifact is edited, and the hash inside it is computed anew: it proves itself again."""
    key = copy.artifacts()[3]
    fields = json.loads(copy.read(key))
    fields |= {"risk": "GREEN"}
    fields["sha256"] = hashlib.sha256(dumped(fields)).hexdigest()
    copy.put(key, dumped(fields))
    return {key}


def modified_by_swapping(copy: Copy) -> set[str]:
    one, other = copy.artifacts()[1], copy.artifacts()[-1]
    data = copy.read(one)
    copy.put(one, copy.read(other))
    copy.put(other, data)
    return {one, other}


def modified_cut(copy: Copy) -> set[str]:
    key = copy.artifacts()[0]
    copy.put(key, copy.read(key)[:-1])
    return {key}


def modified_emptied(copy: Copy) -> set[str]:
    copy.put(copy.links()[0], b"")
    return {copy.links()[0]}


def modified_longer(copy: Copy) -> set[str]:
    key = copy.links()[5]
    copy.put(key, copy.read(key) + b"\n")
    return {key}


def modified_to_a_link(copy: Copy) -> set[str]:
    """A symbolic link stands there, to the same bytes elsewhere."""
    key = copy.artifacts()[2]
    elsewhere = copy.root.with_name(copy.root.name + ".elsewhere")
    elsewhere.write_bytes(copy.read(key))
    copy.remove(key)
    (copy.root / key).symlink_to(elsewhere)
    return {key}


def modified_identity(copy: Copy) -> set[str]:
    copy.put("_store.json", copy.read("_store.json").replace(b"Z", b"1Z"))
    return {"_store.json"}


def missing_artifact(copy: Copy) -> set[str]:
    key = copy.artifacts()[4]
    copy.remove(key)
    return {key}


def missing_run_with_all_that_is_its(copy: Copy) -> set[str]:
    run = copy.artifacts()[0]
    keys = {run, *copy.files(run.removesuffix(".json") + "_advisory_*")}
    keys |= set(copy.files(f"_reviews/*/{Path(run).stem}/*"))
    assert len(keys) == 3
    for key in keys:
        copy.remove(key)
    return keys


def missing_day(copy: Copy) -> set[str]:
    day = copy.artifacts()[0].partition("/")[0]
    keys = set(copy.files(f"{day}/*"))
    shutil.rmtree(copy.root / day)
    return keys


def missing_attachment(copy: Copy) -> set[str]:
    key = copy.files("_attachments/*/*")[-1]
    copy.remove(key)
    return {key}


def missing_identity(copy: Copy) -> set[str]:
    copy.remove("_store.json")
    return {"_store.json"}


def _missing_of_log(pattern: str, which: int) -> Callable[[Copy], set[str]]:
    def plant(copy: Copy) -> set[str]:
        key = copy.files(pattern)[which]
        copy.remove(key)
        return {key}

    return plant


def unsealed_artifact(copy: Copy) -> set[str]:
    at = time.time() - 200
    key = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}/{int(at * 1000):012x}7fff8fffffffffffffff.json"
    copy.put(key, b"{}", at)
    return {key}


def unsealed_of_the_future(copy: Copy) -> set[str]:
    key = copy.artifacts()[-1].partition("/")[0] + "/01a0ffffffff7fff8ffffffffffffff0.json"
    copy.put(key, b"{}", time.time() + 30 * _DAY_SECONDS)
    return {key}


def unsealed_by_cutting_the_log(copy: Copy) -> set[str]:
    """The last seals are gone, with all that follows from them; nobody remembers the log."""
    seals = copy.seals()
    gone = {json.loads(line)["key"] for seal in seals[-2:] for line in seal[:-1]}
    assert gone
    copy.write_log(seals[:-2])
    return gone


def extra_back_dated(copy: Copy) -> set[str]:
    """A run is planted in an old day, with a time of that day."""
    old = copy.artifacts()[0]
    key = old.partition("/")[0] + "/" + Path(old).stem[:-4] + "beef.json"
    copy.put(key, copy.read(old), (copy.root / old).stat().st_mtime)
    return {key}


def extra_review(copy: Copy) -> set[str]:
    old = copy.files("_reviews/*/*/*.json")[0]
    key = old[:-9] + "beef.json"
    copy.put(key, b"{}", (copy.root / old).stat().st_mtime)
    return {key}


def extra_shape(copy: Copy) -> set[str]:
    day = copy.artifacts()[0].partition("/")[0]
    keys = {f"{day}/notes.txt", "other", "_log/notes", f"{day}/.hidden.json", "_reviews/x.json"}
    for key in keys:
        copy.put(key, b"{}")
    return keys


def extra_link(copy: Copy) -> set[str]:
    day = copy.artifacts()[0].partition("/")[0]
    (copy.root / day / "sideways.json").symlink_to("/etc/hostname")
    os.mkfifo(copy.root / day / "fifo.json")
    return {f"{day}/sideways.json", f"{day}/fifo.json"}


def extra_in_the_log(copy: Copy) -> set[str]:
    last = copy.sizes()[-1]
    keys = {
        "_log/tile/0/x001/234",
        "_log/tile/entries/000.p/255",
        f"_log/seals/{grouped(last + 5000)}.old",
        f"_log/cosignatures/{grouped(last)}_xyz",
        f"_log/timestamps/{grouped(last)}.txt",
        f"_log/timestamps/{grouped(last + 7)}.tsr",
        f"_log/cosignatures/{grouped(last + 7)}_0badcafe",
    }
    for key in keys:
        copy.put(key, b"x" * 32)
    key = f"_log/checkpoints/{grouped(last - 1)}"
    assert not (copy.root / key).exists()
    copy.put(key, copy.read(f"_log/checkpoints/{grouped(last)}"))
    # The name is right and the content is nothing: that is a bad signature, not an extra file.
    copy.remove(f"_log/cosignatures/{grouped(last + 7)}_0badcafe")
    return keys - {f"_log/cosignatures/{grouped(last + 7)}_0badcafe"} | {key}


def late_entry(copy: Copy) -> set[str]:
    seals = copy.seals()
    seals[0][1] = changed(seals[0][1], found="late")
    copy.write_log(seals)
    return {json.loads(seals[0][1])["key"]}


def duplicate_entry(copy: Copy) -> set[str]:
    seals = copy.seals()
    last = json.loads(seals[-1][-1])["at"]
    seals[-1].insert(0, changed(seals[0][0], at=last))
    seals[-1][-1] = resealed(seals[-1][-1], entries=len(seals[-1]))
    copy.write_log(seals)
    return {json.loads(seals[0][0])["key"]}


def bad_signature_bit(copy: Copy) -> set[str]:
    key = f"_log/checkpoints/{grouped(copy.sizes()[1])}"
    data = copy.read(key)
    head, _, encoded = data.rpartition(b" ")
    raw = bytearray(base64.b64decode(encoded))
    raw[40] ^= 1
    copy.put(key, head + b" " + base64.b64encode(raw) + b"\n")
    return {key}


def bad_signature_of_other_text(copy: Copy) -> set[str]:
    """The newest checkpoint tells another root; nobody could sign that."""
    key = f"_log/checkpoints/{grouped(copy.sizes()[-1])}"
    lines = copy.read(key).split(b"\n")
    lines[2] = base64.b64encode(b"r" * 32)
    copy.put(key, b"\n".join(lines))
    return {key}


def bad_signature_malformed(copy: Copy) -> set[str]:
    key = f"_log/checkpoints/{grouped(copy.sizes()[1])}"
    copy.put(key, copy.read(key) + b"\n")
    return {key}


def bad_signature_twice(copy: Copy) -> set[str]:
    key = f"_log/checkpoints/{grouped(copy.sizes()[1])}"
    copy.put(key, copy.read(key) + copy.read(key).partition(b"\n\n")[2])
    return {key}


def bad_signature_stripped(copy: Copy) -> set[str]:
    key = f"_log/checkpoints/{grouped(copy.sizes()[-1])}"
    copy.put(key, copy.read(key).partition(b"\n\n")[0] + b"\n\n")
    return {key}


def bad_signature_of_a_witness(copy: Copy) -> set[str]:
    cosign(copy, copy.sizes()[0])
    key = cosign(copy, copy.sizes()[1])
    head, _, encoded = copy.read(key).rpartition(b" ")
    raw = bytearray(base64.b64decode(encoded))
    raw[-1] ^= 1
    copy.put(key, head + b" " + base64.b64encode(raw) + b"\n")
    return {key}


def _stranger() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def unknown_key_of_one(copy: Copy) -> set[str]:
    key = f"_log/checkpoints/{grouped(copy.sizes()[-1])}"
    text = copy.read(key).decode().partition("\n\n")[0] + "\n"
    copy.put(key, signed(text, copy.origin, _stranger()))
    return {key}


def unknown_key_of_a_whole_new_log(copy: Copy) -> set[str]:
    """Records are edited and the whole log is written anew, with another key."""
    key = copy.artifacts()[0]
    data = copy.read(key) + b" "
    copy.put(key, data)
    new = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    seals = [
        [changed(line, **new) if json.loads(line).get("key") == key else line for line in seal]
        for seal in copy.seals()
    ]
    copy.write_log(seals, lambda _, text: signed(text, copy.origin, _stranger()))
    return {f"_log/checkpoints/{grouped(size)}" for size in copy.sizes()}


def unknown_key_unsigned(copy: Copy) -> set[str]:
    """No signature is left anywhere."""
    copy.write_log(copy.seals(), lambda _, text: f"{text}\n".encode())
    return {f"_log/checkpoints/{grouped(copy.sizes()[-1])}"}


def unknown_key_retired(copy: Copy) -> set[str]:
    """The old key signs again after the new one."""
    seals, sizes = copy.seals(), copy.sizes()
    first = next(at for at, seal in enumerate(seals) if any(b'"_acts/' in line for line in seal))
    act = next(at for at, line in enumerate(seals[first]) if b'"_acts/' in line)
    seals[first][act] = changed(seals[first][act], trusts=vkey(copy.origin, 1, _stranger()))
    keys = {sizes[first + 1]: _stranger()}
    copy.write_log(seals, lambda size, text: signed(text, copy.origin, keys.get(size, copy.private)))
    return {f"_log/checkpoints/{grouped(size)}" for size in sizes[first + 2 :]}


def _inconsistent(pattern: str, which: int) -> Callable[[Copy], set[str]]:
    return lambda copy: _edit(copy, copy.files(pattern)[which])


def inconsistent_seal_longer(copy: Copy) -> set[str]:
    key = copy.files("_log/seals/*/*/*/*")[1]
    text, _, signature = copy.read(key).partition(b"\n\n")
    copy.put(key, b"%b\n%b\n\n%b" % (text, text.splitlines()[3], signature))
    return {key}


def _seal_in_place(which: int, change: Callable[[Copy, bytes, str], bytes]) -> Callable[[Copy], set[str]]:
    """Plant a seal with the same entries and something else about its note."""

    def plant(copy: Copy) -> set[str]:
        key = copy.files("_log/seals/*/*/*/*")[which]
        text, _, signature = copy.read(key).partition(b"\n\n")
        copy.put(key, change(copy, text + b"\n", f"{signature.decode()}"))
        return {key}

    return plant


def pending(
    copy: Copy, at: str = "", before: tuple[bytes, ...] = (), sign: Callable[[str], bytes] | None = None
) -> str:
    """Write a seal behind the log's end, of this moment or of another; return its key."""
    start, now = copy.sizes()[-1], datetime.now(UTC).isoformat(timespec="milliseconds")
    at = at or now.replace("+00:00", "Z")
    facts = {"entries": len(before) + 1, "feed": "", "next": at, "upto": at}
    lines = [*before, dumped({"at": at, "seal": facts, "v": 1})]
    key = f"_log/seals/{grouped(start)}"
    sign = sign or (lambda text: signed(text, copy.origin, copy.private))
    copy.put(key, sign(seal_text(copy.origin, start, lines)))
    return key


def inconsistent_pending_unsigned(copy: Copy) -> set[str]:
    return {pending(copy, sign=lambda text: f"{text}\n".encode())}


def inconsistent_pending_of_a_stranger(copy: Copy) -> set[str]:
    return {pending(copy, sign=lambda text: signed(text, copy.origin, _stranger()))}


def inconsistent_pending_of_another_place(copy: Copy) -> set[str]:
    """A copy of an earlier seal, whose signature is right."""
    key = f"_log/seals/{grouped(copy.sizes()[-1])}"
    copy.put(key, copy.read(copy.files("_log/seals/*/*/*/*")[-1]))
    return {key}


def inconsistent_pending_with_a_long_line(copy: Copy) -> set[str]:
    return {pending(copy, before=(b"x" * 65_536,))}


def inconsistent_checkpoint(copy: Copy) -> set[str]:
    """The true key signs another root of the same size: it speaks with two tongues."""
    size = copy.sizes()[1]
    text = f"{copy.origin}\n{size}\n{base64.b64encode(b'r' * 32).decode()}\n"
    copy.put(f"_log/checkpoints/{grouped(size)}", signed(text, copy.origin, copy.private))
    return {f"_log/checkpoints/{grouped(size)}"}


def inconsistent_newest(copy: Copy) -> set[str]:
    size = copy.sizes()[-1]
    text = f"{copy.origin}\n{size}\n{base64.b64encode(b'r' * 32).decode()}\n"
    copy.put(f"_log/checkpoints/{grouped(size)}", signed(text, copy.origin, copy.private))
    return {f"_log/checkpoints/{grouped(size)}"}


def inconsistent_origin(copy: Copy) -> set[str]:
    """The identity is that of another store, right in itself."""
    copy.put(
        "_store.json",
        b'{"created_at_utc":"2026-11-28T20:14:46.246000Z","store_id":"01a223cbc3e6714091aa6963b138706d"}',
    )
    return {"_store.json"}


def inconsistent_witness(copy: Copy) -> set[str]:
    """The witness saw another log of the same size."""
    size = copy.sizes()[1]
    text = f"{copy.origin}\n{size}\n{base64.b64encode(b'r' * 32).decode()}\n"
    return {cosign(copy, size, text=text)}


def inconsistent_timestamp(copy: Copy) -> set[str]:
    key = f"_log/timestamps/{grouped(copy.sizes()[1])}.tsr"
    copy.put(key, token(b"another"))
    return {key}


def gap_between(copy: Copy) -> set[str]:
    seals = copy.seals()
    at = json.loads(seals[0][-1])["at"]
    seals[0][-1] = resealed(seals[0][-1], next=at)
    start = len(seals[0])
    copy.write_log(seals)
    return {f"_log/seals/{grouped(start)}"}


def clock_back_dated(copy: Copy) -> set[str]:
    """A record is sealed with a time of a day before."""
    seals = copy.seals()
    seals[-1][0] = changed(seals[-1][0], at=json.loads(seals[0][0])["at"])
    copy.write_log(seals)
    return {json.loads(seals[-1][0])["key"]}


def clock_ahead(copy: Copy) -> set[str]:
    seals = copy.seals()
    seals[0][0] = changed(seals[0][0], at=json.loads(seals[-1][-1])["at"])
    copy.write_log(seals)
    return {json.loads(seals[0][0])["key"]}


def clock_of_a_seal(copy: Copy) -> set[str]:
    seals = copy.seals()
    seals[-1][-1] = resealed(seals[-1][-1], upto="2099-01-01T00:00:00.000Z")
    start = sum(map(len, seals[:-1]))
    copy.write_log(seals)
    return {f"_log/seals/{grouped(start)}"}


def clock_adopted_late(copy: Copy) -> set[str]:
    """A file is called older than the log, in a seal after one that adopted nothing."""
    seals = copy.seals()
    seals[-1][0] = changed(seals[-1][0], found="adopted", at="2021-03-03T12:00:00.000Z")
    copy.write_log(seals)
    return {json.loads(seals[-1][0])["key"]}


def clock_upto_steps_back(copy: Copy) -> set[str]:
    seals = copy.seals()
    seals[-1][-1] = resealed(seals[-1][-1], upto="1971-01-02T00:00:00.000Z")
    start = sum(map(len, seals[:-1]))
    copy.write_log(seals)
    return {f"_log/seals/{grouped(start)}"}


def clock_promise(copy: Copy) -> set[str]:
    """The next seal is promised for so late that nobody will miss it."""
    seals = copy.seals()
    seals[0][-1] = resealed(seals[0][-1], next="5000-01-01T00:00:00.000Z")
    copy.write_log(seals)
    return {f"_log/seals/{grouped(0)}"}


def inconsistent_form_of_an_entry(copy: Copy) -> set[str]:
    """The log is right in itself, and some of its entries are not in canonical form."""
    seals = copy.seals()
    for at, line in enumerate((seals[-1][0].replace(b",", b", "), seals[-1][1][:-1] + b',"v":1}')):
        copy.remove(json.loads(seals[-1][at])["key"])  # it would have no entry
        seals[-1][at] = line
    start = sum(map(len, seals[:-1]))
    copy.write_log(seals)
    return {f"_log/seals/{grouped(start)}"}


def unsealed_in_an_old_day(copy: Copy) -> set[str]:
    """Written just now, and named after a run of some days ago."""
    old = copy.artifacts()[0]
    key = old.partition("/")[0] + "/" + Path(old).stem[:-4] + "beef.json"
    copy.put(key, copy.read(old), time.time())
    return {key}


def rolled_back(copy: Copy) -> None:
    """The last seals are gone, with all that follows from them, and so are their records."""
    seals = copy.seals()
    for line in (line for seal in seals[-2:] for line in seal[:-1]):
        copy.remove(json.loads(line)["key"])
    copy.write_log(seals[:-2])


Plant = Callable[[Copy], set[str]]
PLANTED: dict[str, list[Plant]] = {
    "modified": [
        modified_artifact,
        modified_link,
        modified_review,
        modified_attachment,
        modified_act,
        modified_with_its_own_hash,
        modified_by_swapping,
        modified_cut,
        modified_emptied,
        modified_longer,
        modified_to_a_link,
        modified_identity,
    ],
    "missing": [
        missing_artifact,
        missing_run_with_all_that_is_its,
        missing_day,
        missing_attachment,
        missing_identity,
        _missing_of_log("_log/seals/*/*/*/*", 0),
        _missing_of_log("_log/seals/*/*/*/*", 1),
        _missing_of_log("_log/seals/*/*/*/*", -1),
        _missing_of_log("_log/checkpoints/*/*/*/*", 0),
        _missing_of_log("_log/checkpoints/*/*/*/*", -1),
        _missing_of_log("_log/tile/0/00?", 0),
        _missing_of_log("_log/tile/0/*.p/*", -1),
        _missing_of_log("_log/tile/1/*.p/*", -1),
        _missing_of_log("_log/tile/entries/00?", 0),
        _missing_of_log("_log/tile/entries/*.p/*", 0),
    ],
    "unsealed": [
        unsealed_artifact,
        unsealed_of_the_future,
        unsealed_in_an_old_day,
        unsealed_by_cutting_the_log,
    ],
    "extra": [extra_back_dated, extra_review, extra_shape, extra_link, extra_in_the_log],
    "late": [late_entry],
    "duplicate": [duplicate_entry],
    "bad_signature": [
        bad_signature_bit,
        bad_signature_of_other_text,
        bad_signature_malformed,
        bad_signature_twice,
        bad_signature_stripped,
        bad_signature_of_a_witness,
    ],
    "unknown_key": [
        unknown_key_of_one,
        unknown_key_of_a_whole_new_log,
        unknown_key_unsigned,
        unknown_key_retired,
    ],
    "inconsistent": [
        _inconsistent("_log/seals/*/*/*/*", 0),
        _inconsistent("_log/seals/*/*/*/*", -1),
        _inconsistent("_log/tile/0/00?", 0),
        _inconsistent("_log/tile/0/*.p/*", -1),
        _inconsistent("_log/tile/1/*.p/*", 0),
        _inconsistent("_log/tile/entries/00?", 0),
        _inconsistent("_log/tile/entries/*.p/*", -1),
        inconsistent_seal_longer,
        _seal_in_place(0, lambda _copy, text, _line: text + b"\n"),
        _seal_in_place(1, lambda copy, text, _line: signed(text.decode(), copy.origin, _stranger())),
        _seal_in_place(1, lambda _copy, text, line: text + b"\n" + 2 * line.encode()),
        _seal_in_place(-1, lambda _copy, text, line: text + b"\n" + line.encode() + b"\n"),
        _seal_in_place(-1, lambda copy, text, _line: signed(text.decode(), copy.origin + "x", copy.private)),
        _seal_in_place(-1, lambda copy, _text, _line: copy.read(copy.files("_log/seals/*/*/*/*")[0])),
        inconsistent_pending_unsigned,
        inconsistent_pending_of_a_stranger,
        inconsistent_pending_of_another_place,
        inconsistent_pending_with_a_long_line,
        inconsistent_checkpoint,
        inconsistent_newest,
        inconsistent_form_of_an_entry,
        inconsistent_origin,
        inconsistent_witness,
        inconsistent_timestamp,
    ],
    "gap": [gap_between],
    "clock": [
        clock_back_dated,
        clock_ahead,
        clock_of_a_seal,
        clock_adopted_late,
        clock_upto_steps_back,
        clock_promise,
    ],
}
