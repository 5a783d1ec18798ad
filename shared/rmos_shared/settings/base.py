"""What the settings of every role share."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rmos_shared.errors import SettingsInvalid

#: Who an address logs in as, and by which password.
_LOGIN = re.compile(r"//[^/@\s]*@")


class Settings(BaseSettings):
    """Read from the environment, prefix ``RMOS_``; never changed."""

    model_config = SettingsConfigDict(
        env_prefix="RMOS_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read the environment; ``values`` given here outrank it.

        Raises:
            SettingsInvalid: naming each variable that is missing or wrong.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = (
                f"RMOS_{'_'.join(str(part) for part in item['loc']).upper()}: "
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_input=False, include_context=False)
            )
            raise SettingsInvalid("; ".join(problems)) from None

    def told(self) -> dict[str, Any]:
        """Return them for a record that anybody may read: of secrets only which there are, never what."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        secrets = sorted(name for name, value in values.items() if isinstance(value, SecretStr))
        # As text, so that the record holds nothing but JSON.
        told = {
            name: _LOGIN.sub("//", str(value))
            for name, value in values.items()
            if name not in secrets and value is not None
        }
        return {"settings": told, "secrets": secrets}
