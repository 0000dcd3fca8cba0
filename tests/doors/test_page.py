"""docs/troubleshooting.md: its table is that of the situations which the tests here meet."""

from tests.kits.doors import LEFT, PAGE, page_with, table


def test_the_page_has_every_situation_that_is_tested() -> None:
    assert PAGE.read_text() == page_with(table()), "python -m tests.doors writes it anew"


def test_all_that_can_be_left_on_disk_is_met() -> None:
    rows = table().splitlines()[2:]
    assert {row.split(" | ")[-1].removesuffix(" |") for row in rows} <= set(LEFT)
