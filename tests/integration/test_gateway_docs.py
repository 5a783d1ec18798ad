"""/docs in a real browser: it needs no other host, and a call can be made from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import open_browser
from support.gateway import RUNS, GatewayProcess, keys_in
from support.records import make_run
from support.runs import Runs

_SECONDS = 60


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path / "profile", log_requests=True) as opened:
        yield opened


def test_a_call_is_made_from_the_docs_and_no_other_host_is_asked(
    browser: webdriver.Chrome,
    start_gateway: Callable[..., GatewayProcess],
    run_log: Runs,
    tmp_path: Path,
) -> None:
    keys_file = tmp_path / "api-keys.jsonl"
    key = keys_in(keys_file, ["read"])["read"]
    gateway = start_gateway(api_keys_file=keys_file)
    run = make_run()
    run_log.writer.put_run(run)

    def find(selector: str) -> WebElement:
        return WebDriverWait(browser, _SECONDS).until(
            lambda _: browser.find_element(By.CSS_SELECTOR, selector)
        )

    browser.get(f"{gateway.url}/docs")
    find("button.authorize").click()
    find(".auth-container input").send_keys(key)
    find(".auth-btn-wrapper button.authorize").click()
    find(".auth-btn-wrapper button.btn-done").click()
    operation = "[id$='get_run_api_rmos_runs__run_id__get']"
    find(f"{operation} .opblock-summary-control").click()
    find(f"{operation} .try-out__btn").click()
    field = find(f"{operation} tr[data-param-name='run_id'] input")
    browser.execute_script("arguments[0].select()", field)
    field.send_keys(run.run_id)
    find(f"{operation} .btn.execute").click()
    status = find(f"{operation} .live-responses-table tr.response .response-col_status")
    WebDriverWait(browser, _SECONDS).until(lambda _: re.match(r"\d{3}", status.text))
    answer = find(f"{operation} .live-responses-table tr.response .response-col_description").text
    assert status.text.startswith("200")
    assert f'"run_id": "{run.run_id}"' in answer
    assert '"explanation_status": "NONE"' in answer

    asked = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")  # type: ignore[no-untyped-call]
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert f"{gateway.url}{RUNS}/{run.run_id}" in asked
    foreign = [url for url in asked if not url.startswith((gateway.url, "data:", "blob:", "chrome:"))]
    assert foreign == []
