"""A writer that slept in the midst of its work, while others finished the store, removed it or put another in its
place, changes nothing when it wakes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdcache.errors import StoreError
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.kits.crash import files_of, write_all
from tests.kits.sleepers import slept, step_count
from tests.kits.stores import Case, create_store, make_case, write_views

ROWS, VIEWS = 200, 2  # four blocks
CASE = make_case(ROWS, 20, views=VIEWS)
OTHER = make_case(ROWS, 20, views=VIEWS, seed=1)  # another teacher's answers to other samples, under equal names
NOISY = Case(
    CASE.identity,
    CASE.order,
    CASE.labels,
    CASE.logits + np.random.RandomState(2).normal(0, 0.2, CASE.logits.shape).astype("f4"),
)
SHARES = (0.2, 0.4, 0.55, 0.7, 0.9)  # of the steps of a whole store: those of block 0 come early, the seal's last
SEAL = 12  # steps from the end


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The steps at which a writer sleeps, one of each kind among them: of a shard, a commit and the seal."""
    count = step_count(tmp_path_factory.mktemp("steps") / "a.kd", CASE)
    first = int(count * SHARES[2])
    return sorted({*(int(count * share) for share in SHARES), *range(first, first + 7), count - SEAL, count - 2})


@pytest.mark.parametrize("other", [CASE, NOISY], ids=["equal", "noisy"])
def test_a_store_that_others_have_sealed_stays_as_it_is(tmp_path: Path, steps: list[int], other: Case) -> None:
    """Its blocks are theirs, or those that it had committed before; it ends well, and says the same seal."""
    for step in steps:
        path, sealed = tmp_path / f"{step}.kd", {}

        def meanwhile(path: Path = path, sealed: dict[str, bytes] = sealed) -> None:
            write_all(path, other)
            sealed.update(files_of(path))

        assert slept(path, CASE, step, meanwhile) == "done"
        assert files_of(path) == sealed
        assert inspect_files(str(path)).whole
        assert list(path.rglob(".tmp-*")) == []
        assert Store.open(path).load(1, np.arange(ROWS)).arrays["classes"].shape == (ROWS, 5)


def removed(path: Path) -> None:
    shutil.rmtree(path)


def begun(path: Path) -> None:
    """Another store that somebody has begun: one block of it is there."""
    write_views(create_store(path, OTHER), 0, OTHER.logits, blocks=[3])


def replaced(path: Path) -> None:
    shutil.rmtree(path)
    begun(path)


def emptied(path: Path) -> None:
    """All that lay in the folder is removed, and another store made in that very folder."""
    for entry in path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    begun(path)


def moved(path: Path) -> None:
    path.rename(path.with_name(f"moved-{path.name}"))
    begun(path)


@pytest.mark.parametrize("happens", [removed, replaced, emptied, moved])
def test_nothing_comes_into_another_store(tmp_path: Path, steps: list[int], happens: Callable[[Path], None]) -> None:
    """It ends with a word, or has finished the store that was moved away; what has the place now is as it was."""
    for step in steps:
        path, there = tmp_path / f"{step}.kd", {}

        def meanwhile(path: Path = path, there: dict[str, bytes] = there) -> None:
            happens(path)
            there.update(files_of(path))

        word = slept(path, CASE, step, meanwhile)
        assert files_of(path) == there, (step, word)
        if happens is removed:
            assert not path.exists(), step
        if word == "done":  # it wrote through the folders that it held: what was moved away is whole
            assert happens is moved, step
            assert inspect_files(str(path.with_name(f"moved-{path.name}"))).whole, step
            continue
        assert isinstance(word, StoreError), (step, word)
        assert str(path) in str(word)
        assert "free some space" not in str(word), word
