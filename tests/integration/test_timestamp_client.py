"""The client of a time-stamp authority, against ``openssl ts`` and against whatever else may answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rmos_runs.local.ports import lasting_port
from rmos_shared.auditlog.timestamp import certificates, proven_token, stamp_query
from rmos_shared.errors import RmosError, SettingsInvalid, TimestampRefused, TimestampUnavailable
from rmos_shared.settings.timestamps import TimestampSettings
from rmos_worker.timestamps.client import TimestampClient
from support.http_server import Act, Call, HttpServer, answer, breaks_off, drips, floods, hangs
from support.tsa import Authority, serving

TEXT = b"rmos-runs/01a20d3c3a8b73898836cc2b6ecc4ed6\n1410\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture
def address(authority: Authority) -> Iterator[str]:
    with serving(authority) as url:
        yield url


def stamp(url: str, ca: Path | None = None, *, seconds: float = 10.0) -> tuple[bytes, datetime]:
    client = TimestampClient.of(TimestampSettings(tsa_url=url, tsa_cert_file=ca, tsa_timeout_seconds=seconds))
    assert client is not None
    try:
        return client.stamp(TEXT)
    finally:
        client.close()


def test_a_token_is_of_this_text_and_of_now_and_proven_by_the_authoritys_certificate(
    authority: Authority, address: str
) -> None:
    for ca in (None, authority.ca):
        token, at = stamp(address, ca)
        assert abs(datetime.now(UTC) - at) < timedelta(seconds=60)
        roots = certificates(authority.ca.read_bytes(), name="ca")
        assert proven_token(token, TEXT, roots) == at
        with pytest.raises(TimestampRefused, match="another hash"):
            proven_token(token, TEXT + b"x", roots)


def test_another_authoritys_certificate_proves_nothing(address: str, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(TimestampRefused, match="not signed by an authority of these certificates"):
        stamp(address, other.ca)
    token, _ = stamp(address)
    with pytest.raises(TimestampRefused, match="not signed"):
        proven_token(token, TEXT, certificates(other.ca.read_bytes(), name="ca"))


def test_a_token_in_which_one_bit_differs_is_not_proven(authority: Authority, address: str) -> None:
    token, _ = stamp(address)
    roots = certificates(authority.ca.read_bytes(), name="ca")
    for place in range(0, len(token), 7):
        spoilt = bytearray(token)
        spoilt[place] ^= 1
        try:
            at = proven_token(bytes(spoilt), TEXT, roots)
        except TimestampRefused:
            continue
        # Bytes that no signature covers, such as an unused certificate's: then the token still says the same.
        assert at == proven_token(token, TEXT, roots)


def test_an_answer_to_another_query_is_refused(authority: Authority) -> None:
    """Neither a token that was granted before, nor one for another text, passes for this one."""
    before = authority.reply(stamp_query(TEXT).der)
    with HttpServer(answer(200, before)) as server, pytest.raises(TimestampRefused, match="nonce"):
        stamp(server.url)

    def another_text(call: Call) -> None:
        # Same nonce, other imprint: the query with its hash replaced.
        query = call.body.replace(stamp_query(TEXT).sha256, bytes(32))
        answer(200, authority.reply(query))(call)

    with HttpServer(another_text) as server, pytest.raises(TimestampRefused, match="another hash"):
        stamp(server.url)


def test_an_authority_that_rejects_is_refused(tmp_path: Path) -> None:
    picky = Authority(tmp_path / "picky", digests="sha512")
    with serving(picky) as url, pytest.raises(TimestampRefused, match="refused, with status 2"):
        stamp(url)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (answer(200, b"<html>captive portal</html>"), TimestampUnavailable),
        (answer(200, b""), TimestampUnavailable),
        (answer(500), TimestampUnavailable),
        (answer(429, b"", Retry_After="30"), TimestampUnavailable),
        (answer(302, b"", Location="http://127.0.0.1:1/"), TimestampRefused),
        (answer(404), TimestampRefused),
        (breaks_off(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"), TimestampUnavailable),
        (hangs(), TimestampUnavailable),
        (hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), TimestampUnavailable),
        (drips(b"HTTP/1.1 200 OK\r\n\r\n", b"x", each_seconds=0.1), TimestampUnavailable),
        (floods(8 << 20), TimestampUnavailable),
    ],
    ids=["html", "empty", "500", "429", "302", "404", "cut", "silent", "headed", "dripping", "endless"],
)
def test_whatever_else_answers_is_an_error_in_time(act: Act, error: type[RmosError]) -> None:
    with HttpServer(act) as server, pytest.raises(error) as raised:
        stamp(server.url, seconds=1.0)
    if isinstance(raised.value, TimestampUnavailable):
        assert raised.value.retry_after_seconds in {None, 30.0}


def test_nobody_at_the_address_is_no_answer() -> None:
    with pytest.raises(TimestampUnavailable, match="ConnectError"):
        stamp(f"http://127.0.0.1:{lasting_port()}/", seconds=2.0)


def test_settings_that_cannot_work_are_told_at_the_start(tmp_path: Path) -> None:
    assert TimestampClient.of(TimestampSettings()) is None
    with pytest.raises(SettingsInvalid, match="RMOS_TSA_URL"):
        TimestampSettings.load(tsa_url="ftp://tsa.example")
    missing = TimestampSettings(tsa_url="http://127.0.0.1:1/", tsa_cert_file=tmp_path / "none.pem")
    with pytest.raises(SettingsInvalid, match="RMOS_TSA_CERT_FILE"):
        TimestampClient.of(missing)
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(SettingsInvalid, match="RMOS_TSA_CERT_FILE holds no PEM"):
        TimestampClient.of(missing)
