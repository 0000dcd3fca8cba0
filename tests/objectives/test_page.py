"""docs/objectives.md: its tables have every objective of the catalogue, with its defaults and exactness."""

from kdcache.objectives.catalogue import TAP_TERMS, TERMS
from tests.kits.objectives_page import IDEAS, KEPT, PAGE, page_with_tables


def test_the_page_has_the_tables_of_the_catalogue() -> None:
    assert PAGE.read_text() == page_with_tables(), "python -m tests.kits.objectives_page writes them anew"


def test_every_objective_has_its_idea() -> None:
    assert list(IDEAS) == list(TERMS)


def test_what_a_store_must_keep_is_said() -> None:
    assert list(KEPT) == list(TAP_TERMS)
    for name, term in TAP_TERMS.items():
        assert all(kept in KEPT[name] for kept in term.facts.keeps)
