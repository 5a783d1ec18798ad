"""Half a minute of chaos: processes killed, connections cut, messages spoilt; nothing lost or doubled.

Part of the load goes in over HTTP, under keys that are repeated until answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
SECONDS = 40
#: Above the harness's own hard cap, so that it cleans up by itself.
TIMEOUT = 430


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The harness's own account of one run."""
    directory = tmp_path_factory.mktemp("chaos")
    program = [sys.executable, "-m", "chaos", "--json", "--directory", str(directory)]
    size = ["--seconds", str(SECONDS), "--seed", "7", "--jobs", "600", "--drain-seconds", "90"]
    counts = ["--kills", "4", "--cuts", "6", "--troubles", "3", "--malformed", "30"]
    counts += ["--homes", "2", "--mounts", "1", "--channels", "3", "--damage", "2", "--later", "1"]
    counts += ["--gateway", "2", "--count", "kill_gateway=2", "gateway_cut_before_answer=2"]
    ended = subprocess.run(
        [*program, *size, *counts],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert ended.returncode in {0, 1}, ended.stderr
    account: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    sys.stdout.write(json.dumps(account, indent=1))  # shown when a test fails
    return account


@pytest.mark.timeout(TIMEOUT + 15)
def test_chaos_loses_and_doubles_nothing(told: dict[str, Any]) -> None:
    # That something really went wrong comes first: all else would hold on a quiet day too.
    assert told["kills"] >= 2, told
    assert told["cuts"] >= 4, told
    assert told["malformed_sent"] >= 10, told
    assert told["homes_by_kind"] == {"kill_supervisor": 1, "second_up": 1}, told
    assert told["channels"] >= 2, told
    assert told["damage"] >= 1, told
    assert told["later"] == told["later_done"] == 1, told
    assert told["mounts"] == 1 or any("no mount of its own" in detail for detail in told["details"]), told
    assert told["gateway_by_kind"]["kill_gateway"] >= 1, told
    # On a busy machine all posts may be answered before the first kill.
    assert told["gateway_back_seconds"] or not told["posts_killed"], told
    assert sum(told["posts_failed"].values()), told
    assert told["posts"] > 60, told
    assert told["posts"] == told["posts_answered"] == told["posts_stored"], told
    assert told["posts_unanswered"] == 0, told
    assert told["runs_accepted"] > 60, told
    assert (told["lost"], told["doubled"], told["wrong"], told["strange"]) == (0, 0, 0, 0), told
    assert told["breaches"] == 0, told
    assert told["invariant"], told
    assert told["always_invariant"], told
    assert (told["pending"], told["runs_uncertain"]) == (0, 0), told
    assert told["malformed_lost"] == 0, told
    assert told["malformed_kept"] == told["malformed_sent"], told
    assert told["sound"], told
