"""The rules of the feasibility engine in words; the words themselves are data, in the TOML beside."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Literal

from rmos_shared.models.base import Frozen, SingleLine, Utf8Text


class Rule(Frozen):
    """One rule of the feasibility engine, told to the operator at the machine."""

    rule_id: SingleLine
    #: RED blocks the run; YELLOW only warns.
    level: Literal["RED", "YELLOW"]
    #: What the rule looks at, by the names that requests and engine use.
    parameters: list[SingleLine]
    #: A phrase without a period; it must read well in mid-sentence once its first letter is lowered.
    title: SingleLine
    #: What the rule found, and what that does to tool, stock or operator.
    meaning: Utf8Text
    #: What to look at or do at the machine or the drawing.
    hint: Utf8Text
    #: What to change in the run so that the rule no longer triggers.
    action: Utf8Text


def load_rules() -> dict[str, Rule]:
    """Read the packaged rules, by id.

    Raises:
        InvalidRequest: a rule lacks a field or has a wrong one; the installation is damaged.
        tomllib.TOMLDecodeError: the same, or an id is given twice.
    """
    text = files("rmos_worker.explainers").joinpath("feasibility_rules.toml").read_text("utf-8")
    return {
        rule_id: Rule.read({"rule_id": rule_id, **facts}, what=f"rule {rule_id}")
        for rule_id, facts in tomllib.loads(text).items()
    }
