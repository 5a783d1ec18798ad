"""That a bulk act does as many things as the operator saw, and not one more."""

from __future__ import annotations

from rmos_shared.errors import Conflict


class NumberDiffers(Conflict):
    """The number that was confirmed is not the number found now; nothing was done."""

    code = "NUMBER_DIFFERS"


def check_number(found: int, confirmed: int) -> None:
    """Raise ``NumberDiffers`` unless exactly ``confirmed`` things were found."""
    if found != confirmed:
        raise NumberDiffers(f"{found} were found and {confirmed} confirmed; look again, nothing was done")
