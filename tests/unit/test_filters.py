from __future__ import annotations

from rmos_runs.cli.filters import _OPTIONS
from rmos_shared.runs.query import RunFilter


def test_every_filter_of_a_list_has_an_option() -> None:
    assert {field for field, _ in _OPTIONS.values()} == set(RunFilter.model_fields)
