"""docs/objectives.md has every objective of the catalogue, docs/taps.md the tables of its figures."""

from kdcache.objectives.catalogue import TAP_TERMS, TERMS
from tests.kits import taps_page
from tests.kits.objectives_page import IDEAS, KEPT, PAGE, page_with_tables


def test_the_page_has_the_tables_of_the_catalogue() -> None:
    assert PAGE.read_text() == page_with_tables(), "python -m tests.kits.objectives_page writes them anew"


def test_every_objective_has_its_idea() -> None:
    assert list(IDEAS) == list(TERMS)


def test_what_a_store_must_keep_is_said() -> None:
    assert list(KEPT) == list(TAP_TERMS)
    for name, term in TAP_TERMS.items():
        assert all(kept in KEPT[name] for kept in term.facts.keeps)


def test_the_page_of_taps_has_the_tables_of_its_figures() -> None:
    assert taps_page.PAGE.read_text() == taps_page.page_with_tables(), "python -m tests.kits.taps_page writes them anew"
