"""Flower on a real pipeline, in a real browser: what an operator reads there is what the ledger has.

``SCREENSHOTS_TO=docs/how-to`` keeps the pictures of ``docs/how-to/flower.md``; they show the tasks that it
names with ``-p no:randomly``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from flower.urls import handlers
from selenium import webdriver
from selenium.webdriver.common.by import By
from tornado.routing import URLSpec
from tornado.web import RequestHandler

from rmos_runs import RunsClient
from rmos_runs.local.home import Addresses, Home
from rmos_runs.local.ports import lasting_port
from rmos_runs.local.processes import MAIN_JOB, Pipeline
from rmos_shared.ids import new_uuid7
from rmos_shared.jobs.model import JobState
from rmos_shared.tasks.table import DEAD_LETTER_QUEUE, QUEUES
from support.browser import open_browser
from support.command import RMOS

SECRET = "spruce-top-of-a-customer"
HOST = socket.gethostname()
_SECONDS = 30


@dataclass(frozen=True)
class Shop:
    """A pipeline with one job that is done, one that is dead and one that waits."""

    pipeline: Pipeline
    home: Home
    addresses: Addresses
    client: RunsClient
    done: Any
    dead: Any
    waiting: Any

    def ask(self, path: str, *, url: str = "", post: bool = False) -> str:
        token = base64.b64encode((self.addresses.flower_auth or "").encode()).decode()
        request = Request(
            f"{url or self.addresses.flower_url}{path}",
            headers={"Authorization": f"Basic {token}"},
            method="POST" if post else "GET",
        )
        with urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def pid(self, name: str) -> int:
        return self.pipeline.supervisor.pids()[name]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, sample_requests: list[dict[str, Any]]) -> Iterator[Shop]:
    home = Home(tmp_path_factory.mktemp("flower"))
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("RMOS_", "FLOWER_")):
                patch.delenv(name)
        patch.setenv("RMOS_RETRY_BASE_SECONDS", "600")  # what is put off stays so while we look
        with Pipeline(home, names=(*MAIN_JOB, "flower")) as pipeline:
            addresses = pipeline.start()
            with RunsClient.connect(broker_url=addresses.broker_url) as client:
                yield Shop(pipeline, home, addresses, client, *three_ends(client, sample_requests[0]))


def three_ends(client: RunsClient, request: dict[str, Any]) -> tuple[Any, Any, Any]:
    request = {**request, "request_id": "req-done", "meta": {"customer": SECRET}}
    done = client.create_run(request, explain=True)
    assert client.wait(done, _SECONDS).state is JobState.DONE
    other = {**request, "request_id": "req-dead", "run_id": done.run_id, "tool_id": "another"}
    dead = client.create_run(other)
    assert client.wait(dead.job_id, _SECONDS).state is JobState.DEAD
    # Its run is said to be on its way, by a job that is dead in truth: so this one has to wait.
    unborn, redis = new_uuid7(), client.ledger._client
    redis.hset("rmos:subjects", f"create:{unborn}", dead.job_id)
    redis.hset(f"rmos:job:{dead.job_id}", "state", "accepted")
    waiting = client.suggest_and_attach(unborn, request_id="req-waiting")
    until(lambda: client.ledger.get(waiting.job_id).state is JobState.WAITING)
    redis.hset(f"rmos:job:{dead.job_id}", "state", "dead")
    return done, dead, waiting


@pytest.fixture(scope="module")
def browser(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile", size=(1500, 720)) as opened:
        opened.execute_cdp_cmd("Network.enable", {})
        token = base64.b64encode((shop.addresses.flower_auth or "").encode()).decode()
        opened.execute_cdp_cmd(
            "Network.setExtraHTTPHeaders", {"headers": {"Authorization": f"Basic {token}"}}
        )
        yield opened


def until(holds: Callable[[], object], told: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def rows(browser: webdriver.Chrome, table: str) -> list[list[str]]:
    """Return what stands in the cells of a table, all of one moment: the pages draw them anew."""
    script = (
        "return [...document.querySelectorAll(arguments[0])]"
        ".map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    found: list[list[str]] = browser.execute_script(script, f"{table} tbody tr")
    return found


def tasks(browser: webdriver.Chrome, shop: Shop) -> dict[str, dict[str, str]]:
    """Return the rows of the page of tasks by message id, once they are there."""
    browser.get(f"{shop.addresses.flower_url}/tasks")
    until(lambda: any(len(row) > 1 for row in rows(browser, "#tasks-table")))
    # Not their text, which the style sheet puts in capitals.
    heads = [
        str(head.get_property("textContent"))
        for head in browser.find_elements(By.CSS_SELECTOR, ".dataTables_scrollHead th")
    ]
    return {row[1]: dict(zip(heads, row, strict=True)) for row in rows(browser, "#tasks-table")}


def queues(browser: webdriver.Chrome, shop: Shop) -> dict[str, tuple[str, str]]:
    """Return messages and ready jobs by queue, as the page tells them."""
    browser.get(f"{shop.addresses.flower_url}/broker")
    return {row[0]: (row[1], row[3]) for row in rows(browser, "#queue-table")}


def keep(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture for the documents, under another name of this machine."""
    if directory := os.environ.get("SCREENSHOTS_TO"):
        script = (
            "const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);"
            "while (texts.nextNode())"
            " texts.currentNode.data = texts.currentNode.data.replaceAll(arguments[0], 'shop')"
        )
        browser.execute_script(script, HOST)
        assert browser.save_screenshot(str(Path(directory) / f"{name}.png"))


def test_the_page_of_tasks_tells_each_job_and_how_it_ended(browser: webdriver.Chrome, shop: Shop) -> None:
    ids = {job.job_id for job in (shop.done, shop.dead, shop.waiting)}
    until(lambda: ids <= tasks(browser, shop).keys(), told=lambda: tasks(browser, shop))
    shown = tasks(browser, shop)

    done, dead, waiting = (shown[job.job_id] for job in (shop.done, shop.dead, shop.waiting))
    assert done["Task"] == "runs.create"
    assert (done["Jobs"], done["First run"]) == ("1 job, request req-done", f"run {shop.done.run_id}")
    assert (done["State"], done["How it ended"]) == ("SUCCESS", "1 job done")
    assert (dead["Jobs"], dead["First run"]) == ("1 job, request req-dead", f"run {shop.done.run_id}")
    assert dead["State"] == "FAILURE"
    assert dead["How it ended"] == f"1 job dead (conflict): rmos dlq show {shop.dead.job_id}"
    assert waiting["Task"] == "runs.suggest_and_attach"
    assert waiting["Jobs"] == "1 job, request req-waiting"
    assert waiting["State"] == "RETRY"
    assert re.fullmatch(r"1 job put off for \d+ s \(run_pending\)", waiting["How it ended"])
    stats = shop.client.ledger.stats()
    jobs_done = sum(int(row["Jobs"].split()[0]) for row in shown.values() if row["State"] == "SUCCESS")
    assert (jobs_done, [row["State"] for row in shown.values()].count("FAILURE")) == (stats.done, stats.dead)
    keep(browser, "flower-tasks")

    search = browser.find_element(By.CSS_SELECTOR, "#tasks-table_filter input")
    search.send_keys("req-waiting")
    until(lambda: [row[1:2] for row in rows(browser, "#tasks-table")] == [[shop.waiting.job_id]])
    search.clear()
    search.send_keys(" ")


def test_a_task_has_a_page_that_says_why_it_failed(browser: webdriver.Chrome, shop: Shop) -> None:
    until(lambda: shop.dead.job_id in tasks(browser, shop))
    # Not clicked: where rows are many it may lie below the window.
    browser.get(str(browser.find_element(By.LINK_TEXT, shop.dead.job_id).get_attribute("href")))
    text = browser.find_element(By.ID, "task-page").text
    assert "FAILURE" in text
    assert f"1 job dead (conflict): rmos dlq show {shop.dead.job_id}" in text
    assert f"create@{HOST}" in text
    assert "Traceback" not in text


def test_the_page_of_queues_and_of_workers_after_a_kill(
    browser: webdriver.Chrome, shop: Shop, sample_requests: list[dict[str, Any]]
) -> None:
    client, worker = shop.client, f"advise@{HOST}"
    runs = [client.create_run(request) for request in sample_requests[1:4]]
    for run in runs:
        client.wait(run.job_id, _SECONDS)
    # Now Flower knows which queues this worker consumes; it must not take them for all there are.
    browser.get(f"{shop.addresses.flower_url}/worker/create@{HOST}")

    os.kill(shop.pid("worker-advise"), signal.SIGKILL)
    explanations = [client.suggest_and_attach(run.run_id) for run in runs]
    stats = client.ledger.stats()
    shown = queues(browser, shop)
    assert "redis://:**@127.0.0.1:" in browser.find_element(By.CSS_SELECTOR, ".broker-url").text
    assert list(shown) == [*QUEUES, DEAD_LETTER_QUEUE]
    assert {queue: int(ready) for queue, (_, ready) in shown.items()} == dict(stats.queues)
    assert all(messages == ready for messages, ready in shown.values())
    assert (shown["runs.advise"][1], shown[DEAD_LETTER_QUEUE][1]) == ("3", str(stats.dead))
    assert json.loads(shop.ask("/api/queues/length"))["active_queues"][-1] == {
        "name": DEAD_LETTER_QUEUE,
        "messages": stats.dead,
        "messages_ready": stats.dead,
    }
    keep(browser, "flower-broker")

    def status() -> dict[str, str]:
        return {row[0]: row[1] for row in rows(browser, "#workers-table") if len(row) > 1}

    browser.get(f"{shop.addresses.flower_url}/workers")
    online = dict.fromkeys((f"create@{HOST}", f"audit@{HOST}"), "Online")
    until(lambda: status() == {**online, worker: "Offline"}, told=status)
    assert [ended.name for ended in shop.pipeline.watch()] == ["worker-advise"]
    until(lambda: status().get(worker) == "Online", told=status)
    for job in explanations:
        assert client.wait(job.job_id, _SECONDS).state is JobState.DONE
    assert queues(browser, shop)["runs.advise"] == ("0", "0")


def test_a_browser_finds_no_controls_and_is_refused_when_it_tries(
    browser: webdriver.Chrome, shop: Shop
) -> None:
    pid = shop.pid("worker-create")
    browser.get(f"{shop.addresses.flower_url}/worker/create@{HOST}")
    assert "Worker pool options" in browser.page_source
    assert not browser.find_elements(By.CSS_SELECTOR, "#worker-shutdown, #worker-pool-grow, form")
    for what in (f"worker/shutdown/create@{HOST}", f"task/revoke/{shop.waiting.job_id}?terminate=true"):
        script = (
            "const told = arguments[1]; fetch(arguments[0], {method: 'POST'})"
            ".then(async answer => told([answer.status, await answer.text()]))"
        )
        answer = browser.execute_async_script(script, f"/api/{what}")
        assert answer == [403, "Read only mode is enabled"]
    browser.get(f"{shop.addresses.flower_url}/task/{shop.waiting.job_id}")
    assert "put off for" in browser.find_element(By.ID, "task-page").text
    assert not browser.find_elements(By.CSS_SELECTOR, "#task-revoke, #task-terminate")
    assert shop.pid("worker-create") == pid
    assert shop.pipeline.watch() == []


def _posts() -> list[str]:
    """Return an address for everything that this Flower lets a caller change."""
    found = []
    for entry in handlers:
        pattern, handler = (
            (entry.regex.pattern.removesuffix("$"), entry.handler_class)
            if isinstance(entry, URLSpec)
            else entry[:2]
        )
        if pattern.startswith("/api/") and handler.post is not RequestHandler.post:
            found.append(pattern.replace("(.+)", "x"))
    return found


def test_all_that_changes_something_is_refused(shop: Shop) -> None:
    assert len(_posts()) >= 14
    for path in _posts():
        with pytest.raises(HTTPError) as refused:
            shop.ask(path, post=True)
        assert (refused.value.code, refused.value.read()) == (403, b"Read only mode is enabled"), path


def test_no_payload_and_no_secret_is_on_a_page_in_a_log_or_in_a_process_list(shop: Shop) -> None:
    broker_password = urlsplit(shop.addresses.broker_url).password
    flower_password = (shop.addresses.flower_auth or "").partition(":")[2]
    secrets = [SECRET, broker_password, flower_password, shop.addresses.advisory_token]
    assert all(secrets)
    worker, task = f"create@{HOST}", shop.dead.job_id
    paths = ["/", "/workers", f"/worker/{worker}", "/tasks", f"/task/{task}", "/broker", "/metrics"]
    paths += ["/api/tasks", f"/api/task/info/{task}", f"/api/workers?refresh=true&workername={worker}"]
    texts = {path: shop.ask(path) for path in paths}
    pids = shop.pipeline.supervisor.pids()
    texts |= {f"process list: {name}": Path(f"/proc/{pid}/cmdline").read_text() for name, pid in pids.items()}
    texts["log"] = (shop.home.logs_dir / "flower.log").read_text()
    assert "flower.started" in texts["log"]
    assert [place for place, text in texts.items() if any(str(secret) in text for secret in secrets)] == []


def test_nobody_looks_without_the_password(shop: Shop) -> None:
    for path in ("/", "/tasks", "/broker", "/workers", "/api/tasks", "/api/queues/length"):
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{shop.addresses.flower_url}{path}", timeout=10)


def test_controls_are_there_when_asked_for(shop: Shop) -> None:
    port = lasting_port()
    words = ["flower", "--allow-control", "--port", str(port), "--home", str(shop.home.root)]
    process = subprocess.Popen([*RMOS, *words], stderr=subprocess.PIPE, text=True, env=_bare())
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(f"{url}/healthcheck"))
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{url}/tasks", timeout=10)
        password = (shop.addresses.flower_auth or "").partition(":")[2]
        assert password not in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert "Revoked" in shop.ask(f"/api/task/revoke/{new_uuid7()}", url=url, post=True)
        assert 'id="worker-shutdown"' in shop.ask(f"/worker/create@{HOST}", url=url)
    finally:
        process.terminate()
        told = process.communicate(timeout=30)[1]
    assert process.returncode == 0, told
    assert "flower_auth in" in told
    assert password not in told


def test_the_command_refuses_to_serve_strangers() -> None:
    refused = subprocess.run(
        [*RMOS, "flower", "--address", "0.0.0.0"],
        env=_bare() | {"RMOS_BROKER_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert "SETTINGS_INVALID" in refused.stderr
    assert "set FLOWER_BASIC_AUTH to user:password" in refused.stderr


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("FLOWER_", "RMOS_"))}


def _answers(url: str) -> bool:
    with suppress(URLError, OSError), urlopen(url, timeout=2):
        return True
    return False
