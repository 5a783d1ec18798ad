"""Ports of loopback."""

from __future__ import annotations

from pathlib import Path

from rmos_runs.local.ports import lasting_port


def test_a_lasting_port_is_none_that_a_connection_gets_by_chance() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {lasting_port() for _ in range(50)}
    assert len(ports) > 40
    assert all(10_240 <= port < first for port in ports)
