"""The page for a stranger is what happens: each command is run on a store to which was done what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rmos_runs.auditor import verifier
from rmos_shared.auditlog.log import AuditLog
from rmos_shared.auditlog.proof import prove
from support import plant
from support.sealed_store import SealedStore, sealed_store

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "verify-a-copy.md"
_BLOCK = re.compile(
    r"(?:^<!-- planted: (?P<planted>\w+) -->\n)?^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
#: What differs from store to store.
_DIFFERS = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DAY"),
    (r"[0-9a-f]{8,}", "HEX"),
    (r"\d{3}/\d{3}/\d{3}/\d{3}", "SIZE"),
    (r"[A-Za-z0-9+/]{43}=", "ROOT"),
    (r"[0-9][0-9,.]*", "N"),
)
BLOCKS = [(found["planted"] or "", found["text"]) for found in _BLOCK.finditer(PAGE.read_text())]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> SealedStore:
    return sealed_store(tmp_path_factory.mktemp("page") / "store", 400)


@pytest.fixture
def place(base: SealedStore, tmp_path: Path) -> Path:
    plant.linked(base.root, tmp_path / "copy")
    copy = plant.Copy(tmp_path / "copy", base.private, WITNESS)
    shutil.copy(verifier.__file__, tmp_path / "verifier.py")
    (tmp_path / "log.vkey").write_text(base.vkey + "\n")
    (tmp_path / "witness.vkey").write_text(plant.vkey(plant.WITNESS, 4, WITNESS) + "\n")
    newest = copy.read(f"_log/checkpoints/{plant.grouped(base.sizes[-1])}")
    (tmp_path / "seen").write_bytes(newest)
    key = copy.artifacts()[0]
    log = AuditLog(base.store, base.origin)
    index = next(n for n, line in enumerate(log.entries()) if key.encode() in line)
    (tmp_path / "run.tlog-proof").write_bytes(prove(log, index).to_bytes())
    (tmp_path / "run.json").write_bytes(copy.read(key))
    return tmp_path


def alike(text: str) -> str:
    for pattern, name in _DIFFERS:
        text = re.sub(pattern, name, text)
    return re.sub(r"[ \t]+", " ", text).strip()


def planted(name: str, place: Path, base: SealedStore) -> None:
    copy = plant.Copy(place / "copy", base.private, WITNESS)
    getattr(plant, name)(copy)


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[name or "clean" for name, _ in BLOCKS])
def test_each_command_of_the_page_prints_what_it_shows(
    name: str, text: str, place: Path, base: SealedStore
) -> None:
    if name:
        planted(name, place, base)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TMPDIR": str(place)}
    for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, shown = command.partition("\n")
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert alike(done.stdout) == alike(shown), done.stdout


def test_every_finding_has_its_example() -> None:
    shown = "".join(text for _, text in BLOCKS)
    for kind in verifier.KINDS:
        assert f"\n{verifier.human(kind)}: " in shown, kind
        assert f"\n### {verifier.human(kind)}\n" in PAGE.read_text(), kind
