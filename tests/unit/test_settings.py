"""Settings: a wrong value stops the start by its name, limits bear their unit, secrets stay secret."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from rmos_shared import settings as package
from rmos_shared.errors import SettingsInvalid
from rmos_shared.settings.advisory_store import AdvisoryStoreSettings
from rmos_shared.settings.audit import AuditSettings
from rmos_shared.settings.base import Settings
from rmos_shared.settings.broker import BrokerSettings
from rmos_shared.settings.gateway import GatewaySettings
from rmos_shared.settings.index import IndexSettings
from rmos_shared.settings.logs import LogSettings
from rmos_shared.settings.nightly import NightlySettings
from rmos_shared.settings.producer import ProducerSettings
from rmos_shared.settings.store import StoreSettings
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_shared.settings.webhooks import WebhookSettings
from rmos_shared.settings.worker import WorkerSettings

ROLES: list[type[BaseSettings]] = [
    BrokerSettings,
    StoreSettings,
    WebhookSettings,
    NightlySettings,
    ProducerSettings,
    WorkerSettings,
    AdvisoryStoreSettings,
    GatewaySettings,
    IndexSettings,
    LogSettings,
    AuditSettings,
    TimestampSettings,
]
FIELDS = [(role, name) for role in ROLES for name in role.model_fields]
NUMBERS = [(role, name) for role, name in FIELDS if role.model_fields[name].annotation in {int, float}]
SECRET = "hunter2"
#: Of each limit, what its name says it counts.
UNITS = (
    *("_seconds", "_ms", "_bytes", "_jobs", "_tries", "_failures", "_crashes", "_rate", "_port"),
    *("_requests", "_lines", "_threads", "_days", "_clients"),
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)


def _bounds(role: type[BaseSettings], name: str) -> dict[str, float]:
    return {
        bound: value
        for item in role.model_fields[name].metadata
        for bound in ("gt", "ge", "lt", "le")
        if (value := getattr(item, bound, None)) is not None
    }


def refused(role: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> str:
    monkeypatch.setenv(f"RMOS_{name.upper()}", value)
    with pytest.raises(SettingsInvalid) as caught:
        role.load()
    monkeypatch.delenv(f"RMOS_{name.upper()}")
    assert str(caught.value).startswith(f"RMOS_{name.upper()}: ")
    return str(caught.value)


def test_every_class_of_settings_is_looked_at() -> None:
    public = [
        kind
        for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for _, kind in inspect.getmembers(importlib.import_module(file.name), inspect.isclass)
        if issubclass(kind, Settings) and kind is not Settings
    ]
    assert set(ROLES) == set(public)


@pytest.mark.parametrize("role", ROLES)
def test_without_any_variable_there_are_defaults(role: Any) -> None:
    role.load()


@pytest.mark.parametrize(("role", "name"), FIELDS)
def test_every_setting_is_described(role: type[BaseSettings], name: str) -> None:
    text = role.model_fields[name].description
    assert text
    assert text.endswith(".")
    assert len(text) > 20


@pytest.mark.parametrize(("role", "name"), NUMBERS)
def test_every_number_bears_its_unit_and_its_bounds(role: type[BaseSettings], name: str) -> None:
    assert name.endswith(UNITS)
    assert {"gt", "ge"} & set(_bounds(role, name))


@pytest.mark.parametrize(("role", "name"), NUMBERS)
def test_what_is_no_number_or_out_of_bounds_stops_the_start(
    role: type[BaseSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = _bounds(role, name)
    wrong = ["", SECRET, "5 s", "nan"]
    if "gt" in bounds:
        wrong.append(str(bounds["gt"]))
    if "ge" in bounds:
        wrong.append(str(bounds["ge"] - 1))
    if "le" in bounds:
        wrong += [str(bounds["le"] + 1), "inf"]
    for value in wrong:
        assert SECRET not in refused(role, monkeypatch, name, value)


@pytest.mark.parametrize(("role", "name"), NUMBERS)
def test_the_bounds_themselves_are_taken(role: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = _bounds(role, name)
    for bound in ("ge", "le"):
        if bound in bounds:
            monkeypatch.setenv(f"RMOS_{name.upper()}", str(bounds[bound]))
            assert getattr(role.load(), name) == bounds[bound]


@pytest.mark.parametrize(("role", "name"), FIELDS)
def test_every_default_lies_within_its_bounds(role: Any, name: str) -> None:
    default = getattr(role.load(), name)
    assert getattr(role.load(**{name: default}), name) == default


@pytest.mark.parametrize(
    ("role", "name"), [(role, name) for role, name in FIELDS if role.model_fields[name].annotation is bool]
)
def test_a_switch_is_on_or_off(role: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("maybe", "2", "", SECRET):
        assert SECRET not in refused(role, monkeypatch, name, value)
    for value, on in (("true", True), ("1", True), ("false", False), ("0", False)):
        monkeypatch.setenv(f"RMOS_{name.upper()}", value)
        assert getattr(role.load(), name) is on


@pytest.mark.parametrize("value", ["", "GREEN_AUTO", "approve_all", SECRET])
def test_an_unknown_policy_stops_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused(WorkerSettings, monkeypatch, "policy", value)
    assert "green_auto" in text
    assert SECRET not in text


def test_policy_b_is_the_default() -> None:
    assert WorkerSettings.load().policy == "green_auto"


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMOS_MAX_TRIES", "0")
    monkeypatch.setenv("RMOS_LEASE_SECONDS", SECRET)
    with pytest.raises(SettingsInvalid) as caught:
        WorkerSettings.load()
    assert "RMOS_MAX_TRIES: " in str(caught.value)
    assert "RMOS_LEASE_SECONDS: " in str(caught.value)


def test_a_keyword_that_is_no_setting_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_RUNS_DIRECTORY: "):
        StoreSettings.load(runs_directory="x")


def test_the_environment_is_read_and_keywords_outrank_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RMOS_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("RMOS_BROKER_URL", "redis://from-environment/1")
    read = WorkerSettings.load()
    assert read.runs_dir == tmp_path
    assert read.broker_url.get_secret_value() == "redis://from-environment/1"
    told = WorkerSettings.load(broker_url="redis://told/2")
    assert told.broker_url.get_secret_value() == "redis://told/2"


@pytest.mark.parametrize(
    ("role", "name"),
    [
        (role, name)
        for role, name in FIELDS
        if role.model_fields[name].annotation in {SecretStr, SecretStr | None}
    ],
)
def test_secrets_do_not_appear(role: Any, name: str) -> None:
    addresses = {"broker_url": f"redis://:{SECRET}@h/0", "index_url": f"postgresql://u:{SECRET}@h/d"}
    value = addresses.get(name, SECRET)
    loaded = role.load(**{name: value})
    assert SECRET in getattr(loaded, name).get_secret_value()
    for told in (repr(loaded), str(loaded), repr(loaded.model_dump()), loaded.model_dump_json()):
        assert SECRET not in told


def test_the_broker_and_the_tokens_are_secrets() -> None:
    secret = {
        name for role, name in FIELDS if role.model_fields[name].annotation in {SecretStr, SecretStr | None}
    }
    assert secret >= {"broker_url", "advisory_token"}
    assert not [name for _, name in FIELDS if "token" in name and name not in secret]


@pytest.mark.parametrize(("role", "name"), FIELDS)
def test_settings_never_change(role: Any, name: str) -> None:
    loaded = role.load()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(loaded, name, getattr(loaded, name))


def test_the_times_fit_together() -> None:
    told = WorkerSettings.load()
    # A worker that misses a beat or two is not yet silent.
    assert told.lease_seconds >= 3 * told.heartbeat_seconds
    assert told.advisory_total_seconds >= told.advisory_timeout_seconds
    assert told.retry_cap_seconds == 900
    assert told.max_tries == 8
    assert told.max_crashes == 3
    assert told.done_ttl_seconds == 7 * 86_400
    assert math.isfinite(told.retry_total_seconds)


def test_a_record_of_settings_tells_which_secrets_there_are_and_nothing_of_them() -> None:
    settings = WorkerSettings.load(
        broker_url="redis://:secret-31415@host/0",
        advisory_url="http://ana:secret-31415@host:8700",
        audit_key="secret-31415",
        max_tries=5,
    )
    told = settings.told()
    assert told["secrets"] == ["audit_key", "broker_url"]
    assert told["settings"]["max_tries"] == "5"
    assert told["settings"]["advisory_url"] == "http://host:8700"
    assert "31415" not in str(told)


def test_an_empty_key_is_none() -> None:
    settings = AuditSettings.load(audit_key="", audit_key_file="")
    assert (settings.audit_key, settings.audit_key_file) == (None, None)
