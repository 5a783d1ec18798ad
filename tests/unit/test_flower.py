"""Who may look at Flower, and in what words it tells of tasks."""

from __future__ import annotations

from typing import Any

import pytest
from celery.events.state import Task

from rmos_shared.errors import SettingsInvalid
from rmos_worker.flower.access import Access
from rmos_worker.flower.options import read_options
from rmos_worker.flower.tasks import readable

OPEN: dict[str, Any] = {"address": "", "unix_socket": "", "basic_auth": (), "auth": "", "read_only": True}


@pytest.mark.parametrize("address", ["", "0.0.0.0", "10.0.0.1", "::", "example.org"])
def test_flower_without_credentials_stays_on_loopback(address: str) -> None:
    with pytest.raises(SettingsInvalid, match="FLOWER_BASIC_AUTH"):
        Access(**OPEN | {"address": address}).check()
    Access(**OPEN | {"address": address, "basic_auth": ("a:b",)}).check()
    Access(**OPEN | {"address": address, "auth": r".*@example\.org"}).check()


@pytest.mark.parametrize(
    "place",
    [{"address": "127.0.0.1"}, {"address": "localhost"}, {"address": "::1"}, {"unix_socket": "/run/flower"}],
    ids=str,
)
def test_on_this_machine_all_may_look_and_nobody_may_touch(place: dict[str, str]) -> None:
    Access(**OPEN | place).check()
    with pytest.raises(SettingsInvalid, match="shut workers down"):
        Access(**OPEN | place | {"read_only": False}).check()
    Access(**OPEN | place | {"read_only": False, "basic_auth": ("a:b",)}).check()


@pytest.mark.parametrize("entries", [("word",), ("user:",), (":word",), ("a:b", "c")], ids=str)
def test_half_a_credential_is_none(entries: tuple[str, ...]) -> None:
    with pytest.raises(SettingsInvalid, match="must be user:password"):
        Access(**OPEN | {"address": "127.0.0.1", "basic_auth": entries}).check()


@pytest.mark.parametrize(
    "variables",
    # A key for signing in elsewhere guards nothing as long as nobody is named who may.
    [
        {"FLOWER_PORT": "secret"},
        {"FLOWER_CONF": "secret"},
        {"FLOWER_OAUTH2_KEY": "secret", "FLOWER_ADDRESS": "::"},
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_and_its_value_is_not(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid, match="FLOWER_") as refused:
        read_options(variables)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {
                "state": "SUCCESS",
                "result": "'2 of 25 jobs done'",
                "args": "runs.create, 25 job(s), run r, request q",
            },
            ("25 jobs, request q", "run r", "2 of 25 jobs done", None, None),
        ),
        (
            {
                "state": "FAILURE",
                "exception": "JobDead('1 job dead (conflict): rmos dlq show a')",
                "traceback": "Traceback …",
                "args": "runs.create, 1 job(s), run r",
            },
            ("1 job", "run r", "1 job dead (conflict): rmos dlq show a", None, None),
        ),
        (
            {"state": "RETRY", "exception": "PutOff('1 job with another worker')", "traceback": "None"},
            (None, None, "1 job with another worker", None, None),
        ),
        (
            {"state": "RETRY", "exception": "Retry(Retry(...), PutOff('1 job put off for 5 s (x)'), None)"},
            (None, None, "1 job put off for 5 s (x)", None, None),
        ),
        (
            {"state": "FAILURE", "exception": "WorkerLostError('signal 9')", "traceback": "Traceback …"},
            (None, None, "WorkerLostError('signal 9')", "WorkerLostError('signal 9')", "Traceback …"),
        ),
        ({"state": "STARTED", "args": "(1,)"}, ("(1,)", None, None, None, None)),
    ],
    ids=["done", "dead", "put off by a child", "put off", "not ours", "started"],
)
def test_a_page_tells_the_jobs_of_a_task_and_how_they_ended(
    fields: dict[str, Any], shown: tuple[str | None, ...]
) -> None:
    task = readable(Task(uuid="a", name="runs.create", **fields))
    assert (task.args, task.kwargs, task.result, task.exception, task.traceback) == shown
