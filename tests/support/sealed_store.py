"""A store as it is after some days of work, sealed by the real sealer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_shared.auditlog.layout import checkpoint_key
from rmos_shared.auditlog.note import KeyKind, Note, Signer
from rmos_shared.auditlog.receipt import Receipt
from rmos_shared.auditlog.sealer import Sealer
from rmos_shared.ids import new_uuid7
from rmos_shared.store.identity import init_store
from rmos_shared.store.local import LocalStore

_HEARTBEAT = timedelta(hours=12)
_SHARE_OF_REVIEWS = 20
_SHARE_OF_ATTACHMENTS = 50


@dataclass
class SealedStore:
    """Where it lies, who signs it, and what is in it."""

    root: Path
    origin: str
    signer: Signer | None
    #: The log's private key, for tests that forge.
    private: Ed25519PrivateKey
    sealed_at: datetime
    artifacts: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    reviews: list[str] = field(default_factory=list)
    attachments: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def vkey(self) -> str:
        assert self.signer is not None
        return self.signer.vkey

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root)

    def seal(self, receipts: Sequence[Receipt], at: datetime) -> None:
        sealer = Sealer(self.store, self.origin, self.signer, heartbeat=_HEARTBEAT)
        sealed = sealer.seal(receipts, now=at, feed_at_end=True)
        assert sealed is not None
        self.sizes.append(sealed.size)
        self.sealed_at = at

    def publish(self, key: str, data: bytes, at: datetime, number: int) -> Receipt:
        """Write a file as it would lie there, without waiting for the disk; return its receipt."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o440)
        os.utime(path, (at.timestamp(), at.timestamp()))
        feed_id = f"{int(at.timestamp() * 1000)}-{number}"
        return Receipt(key, sha256(data).hexdigest(), len(data), at, feed_id, created=True)

    def cosign(self, witness: Signer, size: int, at: datetime) -> str:
        """Add a witness's word on a size; return its key."""
        data = self.store.get(checkpoint_key(size))
        assert data is not None
        note = Note.parse(data)
        signature = witness.sign(note.text, at)
        key = checkpoint_key(size).replace("checkpoints", "cosignatures") + "_" + signature.key_id.hex()
        self.store.create(key, Note(note.text, (signature,)).to_bytes())
        return key


def new_store(root: Path, *, signed: bool = True, seed: int = 7) -> SealedStore:
    """Make an empty store with a key that is the same for the same seed."""
    origin = f"rmos-runs/{init_store(root).store_id}"
    private = Ed25519PrivateKey.from_private_bytes(sha256(b"%d" % seed).digest())
    signer = Signer(origin, private) if signed else None
    return SealedStore(root, origin, signer, private, datetime.now(UTC))


def witness_of(name: str = "witness.example", seed: int = 11) -> Signer:
    return Signer(
        name, Ed25519PrivateKey.from_private_bytes(sha256(b"w%d" % seed).digest()), KeyKind.COSIGNATURE
    )


def sealed_store(
    root: Path,
    runs: int,
    *,
    days: int = 3,
    per_seal: int = 500,
    signed: bool = True,
    bodies: Sequence[bytes] = (),
    seed: int = 7,
) -> SealedStore:
    """Return a store of so many runs of some days, each with its link; some have a review."""
    made = new_store(root, signed=signed, seed=seed)
    first = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) - timedelta(days=days + 1)
    per_day = -(-runs // days)
    for day in range(days):
        at = first + timedelta(days=day)
        receipts: list[Receipt] = []
        for number in range(day * per_day, min(runs, (day + 1) * per_day)):
            at += timedelta(milliseconds=36_000_000 // per_day)
            receipts += _run(made, number, at, bodies)
            if len(receipts) >= per_seal:
                made.seal(receipts, at + timedelta(seconds=2))
                receipts = []
        act = _act(made, at + timedelta(seconds=1))
        made.seal([*receipts, *act], at + timedelta(seconds=2))
        if day < days - 1:
            made.seal([], at + timedelta(seconds=2) + _HEARTBEAT)
    return made


def _run(made: SealedStore, number: int, at: datetime, bodies: Sequence[bytes]) -> Iterator[Receipt]:
    run_id = new_uuid7(at, noise=sha256(b"%d" % number).digest()[:10])
    day = f"{at:%Y-%m-%d}"
    body = bodies[number % len(bodies)] if bodies else json.dumps({"run_id": run_id, "n": number}).encode()
    serial = 10 * number
    if number % _SHARE_OF_ATTACHMENTS == 0:
        gcode = b"G0 X0\nG1 X%d\n" % number
        sha = sha256(gcode).hexdigest()
        made.attachments.append(f"_attachments/{sha[:2]}/{sha}.nc")
        yield made.publish(made.attachments[-1], gcode, at, serial)
    made.artifacts.append(f"{day}/{run_id}.json")
    yield made.publish(made.artifacts[-1], body, at, serial + 1)
    link = sha256(b"link %d" % number).hexdigest()[:32]
    made.links.append(f"{day}/{run_id}_advisory_{link}.json")
    yield made.publish(made.links[-1], b'{"link":"' + body[:600].hex().encode() + b'"}', at, serial + 2)
    if number % _SHARE_OF_REVIEWS == 0:
        review = new_uuid7(at, noise=b"%010d" % number)
        made.reviews.append(f"_reviews/{day}/{run_id}/{review}.json")
        yield made.publish(made.reviews[-1], b'{"verdict":%d}' % number, at, serial + 3)


def _act(made: SealedStore, at: datetime) -> Iterator[Receipt]:
    act_id = new_uuid7(at, noise=b"act_act_ac")
    for number, what in enumerate(("begun", "ended")):
        made.acts.append(f"_acts/{at:%Y-%m-%d}/{act_id}_{what}.json")
        yield made.publish(made.acts[-1], b'{"act":"%b"}' % what.encode(), at, number)
