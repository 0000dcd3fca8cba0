"""Pages whose files and commands run as they stand, and print what the pages say."""

import pytest

from tests.kits.doors import Door
from tests.kits.page_commands import Command, run_page, steps

OWN = ["your_student.md", "your_objective.md", "your_transform.md"]
PAGES = [*OWN, "calibration.md", "commands.md"]
SLOW = {"your_transform.md", "calibration.md"}


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in PAGES])
def test_a_page_runs_as_it_stands(door: Door, page: str) -> None:
    run_page(door, page)


@pytest.mark.parametrize("page", OWN)
def test_a_page_has_files_and_commands_that_work_and_that_are_refused(page: str) -> None:
    codes = [step.exit_code for step in steps(page) if isinstance(step, Command)]
    assert {0, 2} <= set(codes)
    assert len(codes) < len(steps(page))
