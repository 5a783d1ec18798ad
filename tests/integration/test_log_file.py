"""A log that is turned over while its writer goes on writing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from rmos_runs.local.log_file import KEPT, open_log, turn_over


def test_a_writer_that_goes_on_loses_next_to_nothing(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    # Paced: what is written between the last look and the truncation is lost, and on a busy machine that is
    # as long as the scheduler likes. A writer that only writes lost a sixth of its lines there.
    lines = 8_000
    script = f"import time\nfor number in range({lines}): print(number, flush=True); time.sleep(0.0002)"
    descriptor = open_log(log)
    with subprocess.Popen([sys.executable, "-c", script], stdout=descriptor) as writer:
        turned = 0
        while writer.poll() is None:
            turned += turn_over(log, max_bytes=20_000)
            time.sleep(0.001)
    os.close(descriptor)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert turned >= 1
    if turned <= KEPT:
        assert kept.count(b"\n") >= lines * 0.98
