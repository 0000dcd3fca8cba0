"""No silent corruption: flipped, zeroed, cut, emptied or deleted files of every kind are found or refused."""

from pathlib import Path

import pytest

from kdcache.store.store import Store
from tests.kits.damage import HARMS, KINDS, all_reads, damages, outcome, rich_store, unseen

COUNT = 330


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("rich") / "rich.kd")


def test_no_damage_is_silent(rich: Path) -> None:
    seen = damages(rich, COUNT, seed=7)
    assert unseen(seen) == []
    assert sum(seen.values()) > 300
    assert {kind for kind, _, _ in seen} == set(KINDS)
    assert {harm for _, harm, _ in seen} == set(HARMS)
    assert sum(count for (_, _, result), count in seen.items() if result == "found") > 280


def test_the_test_can_fail(rich: Path) -> None:
    """Another value of order or of a shard, with nobody to notice, would be called silent."""
    truth = all_reads(rich)
    assert outcome(rich, truth) == "equal"
    assert outcome(rich, truth[::-1]) == "SILENT"
    assert unseen(type(damages(rich, 1, seed=0))({("order/c/", "flip", "equal"): 1})) != []
    assert Store.open(rich).card.name == "rich"
