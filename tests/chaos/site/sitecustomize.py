"""Sends a process of ``rmos up`` through the harness's proxies to broker and advisory store.

Python imports this by its name before anything else, wherever this directory is on the path. ``rmos up``
tells its processes their addresses by variables of the environment; only host and port are replaced. The
advisory store is given faults on demand.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

for _address, _port in (("RMOS_BROKER_URL", "CHAOS_BROKER_PORT"), ("RMOS_ADVISORY_URL", "CHAOS_STORE_PORT")):
    if _address in os.environ and _port in os.environ:
        _parts = urlsplit(os.environ[_address])
        _login, _at, _ = _parts.netloc.rpartition("@")
        _place = f"{_login}{_at}127.0.0.1:{os.environ[_port]}"
        os.environ[_address] = _parts._replace(netloc=_place).geturl()

if "rmos_advisory_store" in sys.orig_argv:
    from rmos_advisory_store import app
    from support import faulty_store

    app.create_app = faulty_store.create_app
