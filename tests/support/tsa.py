"""A time-stamp authority of our own: ``openssl ts`` behind a small HTTP server, with a CA of its own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from support.threaded_server import ThreadedServer

_CONFIG = """
[tsa]
default_tsa = here
[here]
dir = {directory}
serial = $dir/serial
crypto_device = builtin
signer_cert = $dir/tsa.pem
certs = $dir/ca.pem
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[stamping]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
basicConstraints = critical,CA:false
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
[req]
distinguished_name = name
[name]
"""


class Authority:
    """Its files, and a reply to a query as ``openssl ts`` makes it."""

    def __init__(self, directory: Path, *, digests: str = "sha256, sha512") -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._config = directory / "openssl.cnf"
        self._config.write_text(_CONFIG.format(directory=directory, digests=digests))
        (directory / "serial").write_text("01\n")
        self.ca = directory / "ca.pem"
        self._lock = threading.Lock()
        key = ("-newkey", "rsa:2048", "-nodes", "-config", str(self._config), "-days", "2")
        self._openssl("req", "-x509", *key, "-extensions", "authority", "-subj", "/CN=Test CA", *_out("ca"))
        self._openssl(
            *("req", "-x509", *key, "-extensions", "stamping", "-subj", "/CN=Test TSA", *_out("tsa")),
            *("-CA", "ca.pem", "-CAkey", "ca.key"),
        )

    def reply(self, query: bytes) -> bytes:
        with self._lock:  # the serial is a file
            (self._directory / "query.tsq").write_bytes(query)
            self._openssl(
                "ts", "-reply", "-config", str(self._config), "-queryfile", "query.tsq", "-out", "reply.tsr"
            )
            return (self._directory / "reply.tsr").read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self._directory, check=True, capture_output=True, timeout=60
        )


def _out(name: str) -> tuple[str, ...]:
    return ("-keyout", f"{name}.key", "-out", f"{name}.pem")


@contextmanager
def serving(authority: Authority) -> Iterator[str]:
    """Yield the address at which the authority answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            body = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadedServer(Handler)
    server.start()
    try:
        yield f"{server.url}/tsa"
    finally:
        server.stop()
