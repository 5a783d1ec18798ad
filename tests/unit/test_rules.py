"""The words of the rules against the facts of the engine's own table."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from rmos_shared.errors import InvalidRequest
from rmos_worker.explainers import rules as rules_module
from rmos_worker.explainers.rules import Rule, load_rules

TABLE = Path(__file__).parents[1] / "data/feasibility_rules.tsv"
FACTS = list(csv.DictReader(TABLE.read_text().splitlines(), delimiter="\t"))
RULES = load_rules()


def sentences(rule: Rule) -> list[str]:
    return [rule.meaning, rule.hint, rule.action]


def numbers(text: str) -> set[float]:
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}


def test_every_rule_of_the_engine_is_told_and_no_other() -> None:
    told = {rule_id: (rule.level, ", ".join(rule.parameters)) for rule_id, rule in RULES.items()}
    assert told == {fact["rule_id"]: (fact["level"], fact["parameters"]) for fact in FACTS}
    assert len(told) == 33


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["rule_id"])
def test_each_threshold_is_named(fact: dict[str, str]) -> None:
    rule = RULES[fact["rule_id"]]
    assert numbers(fact["triggers_when"]) <= numbers(f"{rule.title} {rule.meaning}")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_names_in_the_text_are_those_of_the_request(rule: Rule) -> None:
    parameters = {name for fact in FACTS for name in fact["parameters"].split(", ")} | {"layer_name"}
    named = set(re.findall(r"\w+_\w+", " ".join(sentences(rule))))
    assert named <= parameters


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_words_read_as_sentences(rule: Rule) -> None:
    for sentence in sentences(rule):
        assert re.fullmatch(r"[A-Z][ -~]{20,}\.", sentence)
        assert "  " not in sentence
        assert "!" not in sentence
    assert re.fullmatch(r"[A-Z][a-z]+ [ -~]+[^.!]", rule.title)


def test_no_two_rules_say_the_same() -> None:
    texts = [text for rule in RULES.values() for text in (rule.title, *sentences(rule))]
    assert len(set(texts)) == len(texts) == 4 * 33


def test_the_words_are_our_own() -> None:
    phrases = {phrase.casefold() for fact in FACTS for phrase in (fact["triggers_when"], fact["risk"])}
    texts = {text for rule in RULES.values() for text in (rule.title, *sentences(rule))}
    assert not phrases & {text.casefold().rstrip(".") for text in texts}


def test_a_rule_without_its_words_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feasibility_rules.toml").write_text('[F001]\nlevel = "RED"\n')
    monkeypatch.setattr(rules_module, "files", lambda _package: tmp_path)
    with pytest.raises(InvalidRequest, match="rule F001") as caught:
        load_rules()
    assert {problem.field for problem in caught.value.problems} == {
        *("parameters", "title", "meaning", "hint", "action")
    }
