"""Webhooks without a network: where they may go, what settings may say, what one endpoint may take."""

from __future__ import annotations

import base64
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmos_shared.clock import Clock
from rmos_shared.errors import EndpointResting, SettingsInvalid, WebhookForbidden, WebhookUnavailable
from rmos_shared.jobs.webhooks import WEBHOOK_EVENTS
from rmos_worker.webhooks.addresses import CheckedAddresses, is_allowed
from rmos_worker.webhooks.endpoints import WebhookConfig, load_webhooks
from rmos_worker.webhooks.shares import EndpointShares

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
PRIVATE = [
    *(
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
    ),
    *("169.254.169.254", "169.254.0.1", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *(
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "fec0::1",
        "2001:db8::1",
    ),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1"),
    *("2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"),
    *("2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "100::1"),
]
PUBLIC = ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


# Addresses


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_that_is_not_public_is_allowed(address: str) -> None:
    assert not is_allowed(ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ip_address(address), ())


def test_a_network_that_the_settings_name_is_allowed_and_no_other() -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00::/64"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::5", "1.1.1.1"):
        assert is_allowed(ip_address(address), networks), address
    for address in ("10.2.0.1", "127.0.0.1", "fd01::5", "::ffff:10.2.0.1", "2002:a02:1::"):
        assert not is_allowed(ip_address(address), networks), address


@given(st.ip_addresses(v=4))
def test_an_address_by_another_name_is_judged_the_same(address: Any) -> None:
    number = int(address)
    mapped, translated = ip_address((0xFFFF << 32) + number), ip_address((0x64FF9B << 96) + number)
    assert is_allowed(mapped, ()) == is_allowed(translated, ()) == is_allowed(address, ())


def resolving(*addresses: str) -> CheckedAddresses:
    infos = [(0, 0, 0, "", (address, 443)) for address in addresses]
    return CheckedAddresses(getaddrinfo=lambda *_, **__: infos)


def test_every_address_of_a_name_is_checked() -> None:
    assert resolving("1.1.1.1", "1.1.1.1", "8.8.8.8")("x", 443) == ["1.1.1.1", "8.8.8.8"]
    for addresses in (("1.1.1.1", "10.0.0.1"), ("10.0.0.1", "1.1.1.1"), ("::1",)):
        with pytest.raises(WebhookForbidden, match="allowed_networks"):
            resolving(*addresses)("x", 443)


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "::1"]
)
def test_the_many_names_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises((WebhookForbidden, WebhookUnavailable)):
        CheckedAddresses()(host, 443)


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    def fails(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    with pytest.raises(WebhookUnavailable, match="cannot be resolved"):
        CheckedAddresses(getaddrinfo=fails)("x", 443)
    with pytest.raises(WebhookUnavailable):
        CheckedAddresses()("x" * 70 + ".example", 443)
    with pytest.raises(WebhookUnavailable, match="no address"):
        resolving()("x", 443)


# The settings


def load(tmp_path: Path, text: str, **environment: str) -> WebhookConfig:
    path = tmp_path / "webhooks.toml"
    path.write_text(text)
    return load_webhooks(path, {"HOOK": SECRET, **environment})


def one(url: str = "https://hooks.example.com/x", more: str = "", head: str = "") -> str:
    return f"""
allowed_hosts = ["hooks.example.com", "*.example.org", "10.1.2.3"]
{head}
[[endpoints]]
id = "erp"
url = "{url}"
secret_env = "HOOK"
events = ["run.created", "job.dead"]
{more}
"""


def test_no_file_is_no_webhooks() -> None:
    assert load_webhooks(None).subscriptions() == []


def test_a_file_tells_endpoints_and_networks(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n{SECRET}\n")
    text = one(head='allowed_networks = ["10.1.0.0/16"]') + (
        '[[endpoints]]\nid = "shop"\nurl = "https://a.example.org/"\nsecret_file = "key"\n'
        'events = ["run.explained", "run.explained"]\nenabled = false\n'
    )
    config = load(tmp_path, text)
    assert config.networks == (ip_network("10.1.0.0/16"),)
    assert [(told.endpoint, told.events, told.enabled) for told in config.subscriptions()] == [
        ("erp", ("run.created", "job.dead"), True),
        ("shop", ("run.explained",), False),
    ]
    assert config.endpoints["shop"].secrets == (SECRET, SECRET)
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com:8443/a?b=c", "https://HOOKS.example.com", "https://10.1.2.3"]
)
def test_a_host_that_is_allowed(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, one(url)).endpoints["erp"].url == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://hooks.example.com",
            "ftp://hooks.example.com",
            "//hooks.example.com",
            "hooks.example.com",
            "",
        ),
        *("https://example.org", "https://aexample.org", "https://.example.org", "https://example.com"),
        *("https://hooks.example.com.evil.test", "https://evil.test/hooks.example.com", "https://127.0.0.1"),
        *(
            "https://hooks.example.com@evil.test",
            "https://a:b@hooks.example.com",
            "https://a@hooks.example.com",
        ),
        *(
            "https://hooks.example.com:99999",
            "https://hooks.example.com#x",
            "https://evil.test\\\\@hooks.example.com",
        ),
        *("https://hooks.example.com /", "https://höoks.example.com", "https://[::1]", "https://"),
    ],
)
def test_a_url_that_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsInvalid, match="RMOS_WEBHOOKS_FILE"):
        load(tmp_path, one(url))


def test_http_must_be_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, one("http://hooks.example.com", head="allow_http = true")).endpoints


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[endpoints", "no TOML"),
        ("\xff", "no TOML"),
        ("other = 1", "other"),
        (one(more="other = 1"), "endpoints.0.other"),
        (one().replace('"erp"', '"ERP"'), "endpoints.0.id"),
        (one().replace('"erp"', '"a.b"'), "endpoints.0.id"),
        (one() + one().partition("]\n")[2].partition("[[")[2].join(["[[", ""]), "two of this id"),
        (one().replace("job.dead", "job.lost"), "job.discarded"),
        (one().replace('["run.created", "job.dead"]', "[]"), "endpoints.0.events"),
        (one().replace("run.created", "webhook.test"), "endpoints.0.events"),
        (one(head='allowed_networks = ["10.1.2.3/16"]'), "allowed_networks.0"),
        (one().replace('"*.example.org"', '"*"'), "allowed_hosts.1"),
        (one().replace('"*.example.org"', '"Example.org"'), "allowed_hosts.1"),
        (one().replace('"HOOK"', '"NONE"'), "the variable NONE"),
        (one(more='secret_file = "x"'), "one of the two"),
        (one().replace('secret_env = "HOOK"', 'secret_file = "none"'), "the file none"),
        (one().replace('secret_env = "HOOK"', ""), "one of the two"),
    ],
)
def test_a_file_that_is_wrong_stops_the_start(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "webhooks.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsInvalid, match="RMOS_WEBHOOKS_FILE") as raised:
        load_webhooks(path, {"HOOK": SECRET})
    assert told in str(raised.value)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all!", "x" * 200])
def test_a_secret_that_is_none_is_not_shown(tmp_path: Path, secret: str) -> None:
    with pytest.raises(SettingsInvalid, match="HOOK") as raised:
        load(tmp_path, one(), HOOK=secret)
    assert secret in {"", "whsec_"} or secret not in str(raised.value)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load_webhooks(tmp_path / "none")


def test_every_event_may_be_wanted(tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in WEBHOOK_EVENTS)
    config = load(tmp_path, one().replace('"run.created", "job.dead"', names))
    assert config.endpoints["erp"].events == WEBHOOK_EVENTS


# Shares


class Hand(Clock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> Any:
        raise NotImplementedError

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def shares(clock: Clock) -> EndpointShares:
    return EndpointShares(most_calls=2, base_seconds=4, cap_seconds=10, clock=clock)


def fail(of: EndpointShares, endpoint: str = "a") -> None:
    with pytest.raises(WebhookUnavailable, match="down"), of.turn(endpoint):
        raise WebhookUnavailable("down")


def test_an_endpoint_that_fails_rests_ever_longer_and_the_others_go_on() -> None:
    clock = Hand()
    some = shares(clock)
    for _ in range(5):
        fail(some)
    for rest in (4, 8, 10, 10):
        with pytest.raises(EndpointResting, match="rests") as raised, some.turn("a"):
            pytest.fail("it was called")
        assert raised.value.retry_after_seconds == rest
        with some.turn("b"):
            pass
        clock.at += rest
        fail(some)
    clock.at += 10
    with some.turn("a"), pytest.raises(EndpointResting, match="share"), some.turn("a"):
        pytest.fail("two were sent to see")
    with some.turn("a"), some.turn("a"):
        pass


def test_an_endpoint_has_so_many_calls_at_a_time() -> None:
    some = shares(Hand())
    with some.turn("a"), some.turn("a"):
        with pytest.raises(EndpointResting, match="share"), some.turn("a"):
            pytest.fail("one too many")
        with some.turn("b"):
            pass
    with some.turn("a"):
        pass


def test_a_refusal_is_an_answer_and_no_failure() -> None:
    some = shares(Hand())
    for _ in range(20):
        with pytest.raises(WebhookForbidden), some.turn("a"):
            raise WebhookForbidden("no")
