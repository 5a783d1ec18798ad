"""Publishing runs durably in groups, against a bare loop of the same system calls on the same bytes."""

from __future__ import annotations

import os
import secrets
from itertools import count
from pathlib import Path

from ratio import Row, compare

from rmos_shared.ids import new_uuid7
from rmos_shared.store.local import LocalStore

GROUP = 100


def rows(directory: Path, artifacts: list[bytes], *, rounds: int) -> list[Row]:
    """Return the rows for ``artifacts``, stored again and again under new names."""
    store = LocalStore(directory / "ours")
    serial = count()

    def ours() -> None:
        partition = f"p{next(serial)}"
        for start in range(0, len(artifacts), GROUP):
            group = artifacts[start : start + GROUP]
            store.create_many([(f"{partition}/{new_uuid7()}.json", data) for data in group])

    def bare() -> None:
        partition = directory / f"bare{next(serial)}"
        partition.mkdir()
        folder = os.open(partition, os.O_RDONLY)
        for start in range(0, len(artifacts), GROUP):
            drafts = [_draft(folder, data) for data in artifacts[start : start + GROUP]]
            for draft in drafts:
                os.fsync(draft)
            for draft in drafts:
                os.link(
                    f"/proc/self/fd/{draft}", secrets.token_hex(16), dst_dir_fd=folder, follow_symlinks=True
                )
                os.close(draft)
            os.fsync(folder)
        os.close(folder)

    return [
        compare(
            "store create, groups of 100",
            ours,
            "bare write, fsync, link loop",
            bare,
            reach=0.6,
            rounds=rounds,
        )
    ]


def _draft(folder: int, data: bytes) -> int:
    draft = os.open(f"/proc/self/fd/{folder}", os.O_TMPFILE | os.O_WRONLY, 0o440)
    os.write(draft, data)
    return draft
