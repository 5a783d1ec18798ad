"""Which addresses a webhook may be sent to: public ones, and those that the settings name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from rmos_shared.errors import WebhookForbidden, WebhookUnavailable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
#: Networks whose addresses hold an IPv4 address in their last four bytes (RFC 6052, RFC 8215).
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
#: ``socket.getaddrinfo``, or what stands for it in a test.
GetAddresses = Callable[..., Sequence[tuple[Any, ...]]]


def is_allowed(address: Address, networks: Sequence[Network]) -> bool:
    """Say whether an address may be connected to.

    Public unicast ones may, and those in ``networks``. What an IPv6 address carries inside (IPv4-mapped,
    6to4, Teredo, NAT64) counts as much as the address itself.
    """
    return all(any(one in network for network in networks) or _is_public(one) for one in _meant_by(address))


def _meant_by(address: Address) -> Iterator[Address]:
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None or any(address in network for network in _NAT64):
        yield IPv4Address(int(address) & 0xFFFF_FFFF)  # the same host by another name
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _is_public(address: Address) -> bool:
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or (isinstance(address, IPv6Address) and address.is_site_local)
    )


class CheckedAddresses:
    """Resolves a host for one connection, and lets it go on only to addresses that are allowed.

    Called with host and port, it returns what the connection is then made to, so that a name which resolves
    to something else a moment later gains nothing.

    Not covered: the time that the system's resolver takes; it has limits of its own.
    """

    def __init__(
        self, networks: Sequence[Network] = (), *, getaddrinfo: GetAddresses = socket.getaddrinfo
    ) -> None:
        """Allow ``networks`` besides public addresses."""
        self._networks = tuple(networks)
        self._getaddrinfo = getaddrinfo

    def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``, each once.

        Raises:
            WebhookForbidden: one of them is not allowed, whichever would have been used.
            WebhookUnavailable: the name cannot be resolved now.
        """
        try:
            found = self._getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise WebhookUnavailable(f"host {host} cannot be resolved ({type(error).__name__})") from error
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for address in addresses:
            if not is_allowed(ip_address(address), self._networks):
                raise WebhookForbidden(
                    f"host {host} has the address {address}, which is not public; add its network to "
                    "allowed_networks in RMOS_WEBHOOKS_FILE if it is to be called"
                )
        if not addresses:
            raise WebhookUnavailable(f"host {host} has no address")
        return addresses
