"""The performance page: each note stands where it belongs, or there is no page."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TITLE = "# Notes on the figures\n\nFor writers.\n\n"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of ``bench``, which find each other as ``bench/run.py`` lets them."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return {name: importlib.import_module(f"lib.{name}") for name in ("notes", "page", "result")}


def test_a_note_is_read_below_its_heading(bench: dict[str, ModuleType]) -> None:
    said = bench["notes"].read(TITLE + "## summary\nAll is\nwell.\n\n## advise\nLess so.\n")
    assert said == {"summary": "All is\nwell.", "advise": "Less so."}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        # As it was published once: wrapped into its heading, the note showed inside another's section.
        ("## summary\nWell.\n\n## advise Of a job's 62 ms\n51 are latency.\n", "line 8"),
        ("## summary\nWell.\n##advise\nLess.\n", "line 7"),
        ("## summary\nWell.\n### advise\nLess.\n", "line 7"),
        ("## summary\nWell.\n# advise\nLess.\n", "line 7"),
        ("## summary\nWell.\n## summary\nAgain.\n", "twice"),
        ("## summary\n\n## advise\nLess.\n", "summary"),
    ],
)
def test_a_heading_that_is_none_is_refused(bench: dict[str, ModuleType], text: str, named: str) -> None:
    with pytest.raises(bench["notes"].NotesUnreadable, match=named):
        bench["notes"].read(TITLE + text)


def test_notes_on_nothing_and_missing_notes_are_refused(bench: dict[str, ModuleType]) -> None:
    sections, facts = bench["result"].load(ROOT / "docs/performance/results.json")
    said = bench["notes"].read((ROOT / "bench/notes.md").read_text())

    def page(said: dict[str, str]) -> None:
        bench["page"].text(sections, facts, said, "performance", whole=True)

    page(said)
    with pytest.raises(bench["notes"].NotesUnreadable, match="on the page: adivse"):
        page({**said, "adivse": "Wrong."})
    # Whatever falls short of what was meant has to be explained.
    for key in ("summary", "accept-kombu", "bulk-peer", "cpu-bulk", "cpu-bulk-all", "advise"):
        with pytest.raises(bench["notes"].NotesUnreadable, match=f"missing: {key}"):
            page({name: note for name, note in said.items() if name != key})


def test_the_published_page_is_what_its_results_and_notes_say(bench: dict[str, ModuleType]) -> None:
    # `.venv/bin/python bench/run.py --page` writes it.
    sections, facts = bench["result"].load(ROOT / "docs/performance/results.json")
    said = bench["notes"].read((ROOT / "bench/notes.md").read_text())
    text = bench["page"].text(sections, facts, said, "performance", whole=True)
    assert (ROOT / "docs/performance.md").read_text() == text
    titles = [line for line in text.splitlines() if line.startswith("#")]
    expected = ["# Performance", *(f"## {name.capitalize()}" for name in ("method", "all rows", *sections))]
    assert titles == expected
