"""Who may look at Flower, and what they may do there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from rmos_shared.errors import SettingsInvalid


@dataclass(frozen=True, slots=True)
class Access:
    """What Flower is told of who may reach it; fields are named as its own options."""

    #: Empty: every address of the machine.
    address: str
    unix_socket: str
    #: ``user:password`` of each who may look.
    basic_auth: tuple[str, ...]
    #: A pattern of e-mail addresses, for those who sign in elsewhere; empty: nobody does.
    auth: str
    read_only: bool

    def check(self) -> None:
        """Refuse to serve strangers.

        Without credentials only this machine may look, and nobody may change anything: whoever reaches
        Flower's controls can revoke tasks and shut workers down, and on loopback that is every user and every
        page in a browser.

        Raises:
            SettingsInvalid: naming the variables.
        """
        if not all(all(entry.partition(":")[::2]) for entry in self.basic_auth):
            raise SettingsInvalid("FLOWER_BASIC_AUTH: must be user:password, several separated by commas")
        if self.basic_auth or self.auth:
            return
        if not self.unix_socket and not is_loopback(self.address):
            where = f"on {self.address}" if self.address else "on every address of this machine"
            raise SettingsInvalid(
                f"Flower would listen {where} without credentials; set FLOWER_BASIC_AUTH to user:password, "
                "or FLOWER_ADDRESS to 127.0.0.1"
            )
        if not self.read_only:
            raise SettingsInvalid(
                "Flower would let everybody on this machine shut workers down; set FLOWER_BASIC_AUTH to "
                "user:password, or leave the controls off"
            )


def is_loopback(address: str) -> bool:
    """Return if only this machine reaches ``address``."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
