"""The README and the first pages: every command runs in an empty folder, and prints what the page shows."""

from pathlib import Path

from tests.kits.first_day import PAGES, Day, steps
from tests.kits.sharing_page import shape


def test_every_command_of_the_first_pages_prints_what_they_show(tmp_path: Path) -> None:
    day = Day(tmp_path / "day")
    for page in PAGES:
        folder, count = day.begin(page), 0
        for command, shown in steps(page):
            printed = day.run(command, folder)
            assert shape(printed) == shape(shown), f"{page.name}: $ {command}\n{printed}"
            count += 1
        assert count >= 2, page.name
