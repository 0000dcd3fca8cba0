"""docs/troubleshooting.md: it has the situations that the tests here meet, each once."""

from tests.kits.doors import LEFT, PAGE
from tests.kits.guide import groups, guide, page_with, situations


def test_the_page_is_made_of_the_situations_and_their_words() -> None:
    assert PAGE.read_text() == page_with(guide()), "python -m tests.doors writes it anew"


def test_every_situation_that_is_tested_has_its_place() -> None:
    named = [message.situation for group in groups() for message in group.messages]
    named += [name for group in groups() for name in group.passes]
    assert sorted(named) == sorted({situation.situation for situation in situations()})


def test_titles_are_told_apart() -> None:
    titles = [message.title for group in groups() for message in group.messages]
    assert len(set(titles)) == len(titles)


def test_all_that_can_be_left_on_disk_is_met() -> None:
    assert {situation.left for situation in situations()} <= set(LEFT)
