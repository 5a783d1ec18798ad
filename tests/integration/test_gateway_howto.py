"""The calls that the page on HTTP shows are made, as they stand there, by a shell and curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.gateway import GatewayProcess, keys_in
from support.records import make_run
from support.runs import Runs

PAGE = Path(__file__).parents[2] / "docs/how-to/http.md"


def test_every_call_that_is_shown_works(
    start_gateway: Callable[..., GatewayProcess], run_log: Runs, tmp_path: Path, ledger: Any
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    calls = [block for block in blocks if "curl" in block]
    assert len(calls) >= 6
    keys_file = tmp_path / "api-keys.jsonl"
    keys = keys_in(keys_file, ["enqueue", "read"], together=True) | keys_in(keys_file, ["operate", "review"])
    gateway = start_gateway(api_keys_file=keys_file)
    runs = [make_run(), make_run(mode="saw")]
    run_log.writer.put_runs(runs)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for call in calls:
        done = subprocess.run(
            ["sh", "-e", "-u", "-c", call],
            env={
                **os.environ,
                "NO_PROXY": "127.0.0.1",
                "RMOS_GATEWAY_URL": gateway.url,
                "KEY": keys["all"],
                "OPERATOR_KEY": keys["operate"],
                "REVIEWER_KEY": keys["review"],
                "RUN_ID": runs[0].run_id,
                "OTHER_ID": runs[1].run_id,
            },
            cwd=downloads,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, call + done.stdout + done.stderr
    assert {file.name for file in downloads.iterdir()} == {
        f"{runs[0].run_id}.json",
        f"{runs[0].run_id}.zip",
        "runs.zip",
    }
    assert ledger.stats().accepted == 3
