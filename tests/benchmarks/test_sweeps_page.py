"""docs/sweep_costs.md: its tables are those of the published record."""

import json

from tests.benchmarks.sweeps_page import BEGIN, FIGURES, PAGE, text_of


def test_the_tables_are_those_of_the_record() -> None:
    page, study = PAGE.read_text(), json.loads(FIGURES.read_text())
    assert BEGIN in page
    assert text_of(page, study) == page, "run python -m tests.benchmarks.sweeps_page"
    assert "| 1 | 9.4 | 11.4 | 10.9 | 0.86 |" in page
