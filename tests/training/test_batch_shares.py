"""shares: every process count shares out the batches that one process has, each row once, mixing partners together."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Encoding
from kdcache.objectives.batch import Batch
from kdcache.store.plan import partners_of
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.batch_shares import near_equal, share_sizes
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from tests.kits.batches import batches_left
from tests.kits.views import FULL, TOPK, Mix, digits, extract_store, make_setting, plan_of, teacher_of

UNHURRIED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))
def test_shares_add_up_and_are_near_equal(pairs: int, singles: int, world_size: int) -> None:
    paired, single = share_sizes(pairs, singles, world_size)
    assert (paired.sum(), single.sum()) == (pairs, singles)
    assert min(paired.min(), single.min()) >= 0
    sizes = 2 * paired + single
    assert sizes.max() - sizes.min() <= (1 if not pairs else 2)
    assert sizes[0] == sizes.max()  # the process whose buffers count


def test_near_equal_parts_begin_with_the_larger() -> None:
    assert near_equal(11, 4).tolist() == [3, 3, 3, 2]
    assert near_equal(2, 3).tolist() == [1, 1, 0]


def dealt(mix: Mix, world_size: int, epoch: int, **options: Any) -> list[list[BatchRows]]:
    """Each process's batches of an epoch."""
    chosen: dict[str, Any] = {"cycle": (0, 1), "batch_size": 7, "seed": 3, "block": 64, "window_rows": 128, "rows": 300}
    given = {**chosen, **options}
    positions = np.flatnonzero(np.random.RandomState(1).uniform(size=given["rows"]) < 0.8)
    return [
        list(BatchOrder(positions, plan=plan_of(mix=mix), rank=rank, world_size=world_size, **given).batches(epoch))
        for rank in range(world_size)
    ]


def test_the_union_of_shares_is_the_batch_of_one_process(subtests: pytest.Subtests) -> None:
    mixes: tuple[Mix, ...] = ("none", "mixup")
    for mix, batch_size, world_size in product(mixes, [1, 4, 33, 500], [2, 3, 5]):
        with subtests.test(mix=mix, batch_size=batch_size, world_size=world_size):
            (alone,) = dealt(mix, 1, 2, batch_size=batch_size)
            shared = dealt(mix, world_size, 2, batch_size=batch_size)
            assert {len(each) for each in shared} == {len(alone)}
            for step, whole in enumerate(alone):
                require_shared(whole, [each[step] for each in shared], mix)


def require_shared(whole: BatchRows, mine: list[BatchRows], mix: Mix) -> None:
    """Each row once, and a row's mixing partner where the row is, if the batch has it."""
    assert sorted(np.concatenate([row.positions for row in mine])) == sorted(whole.positions)
    assert {row.shares for row in mine} == {tuple(len(row.positions) for row in mine)}
    assert {(row.epoch, row.view, row.step, row.window) for row in mine} == {
        (whole.epoch, whole.view, whole.step, whole.window)
    }
    together = set(whole.positions.tolist())
    for row in mine:
        partners = set(partners_of(plan_of(mix=mix), row.positions, row.view, 300).tolist()) & together
        assert partners <= set(row.positions.tolist())


@pytest.mark.parametrize("window_rows", [64, 1000])
def test_a_process_holds_its_own_rows_of_a_window(window_rows: int) -> None:
    batch_order = BatchOrder(range(300), 300, plan_of(mix="cutmix"), (0,), 16, 1, 64, window_rows, rank=1, world_size=3)
    for number in range(batch_order.window_count):
        own = batch_order.own_window(0, number)
        rows = [row for row in batch_order.batches(0) if row.window == number]
        assert sorted(np.concatenate([row.positions for row in rows])) == own.positions.tolist()
        for row in rows:
            np.testing.assert_array_equal(own.positions[row.rows], row.positions)
        assert len(own.positions) <= -(-len(batch_order.window(0, number).positions) // 3) + 2 * len(rows)


@pytest.mark.parametrize(("encoding", "mix"), [(TOPK, "none"), (TOPK, "mixup"), (FULL, "cutmix")], ids=str)
def test_the_rows_of_shares_are_those_of_one_process(tmp_path: Path, encoding: Encoding, mix: Mix) -> None:
    """With processes that have no row in any batch, and one with a loader worker."""
    data = digits(90)
    store = extract_store(tmp_path / "a.kd", make_setting(data, teacher_of(), plan_of(mix=mix), encoding))
    options: dict[str, Any] = {"batch_size": 4, "epochs": 2, "labels": LabelOptions(memory_bytes=3000)}
    alone = list(batches_left(Loader(data, [store], **options)))
    feeds = [FeedOptions(workers=int(rank == 1), rank=rank, world_size=5) for rank in range(5)]
    shared = [list(batches_left(Loader(data, [store], **options, feed=feed))) for feed in feeds]
    assert {len(each) for each in shared} == {len(alone)}
    assert all(0 in batch.shares for batch in shared[0])
    for step, whole in enumerate(alone):
        mine = [each[step] for each in shared]
        assert sum(len(batch.positions) for batch in mine) == len(whole.positions)
        for batch in mine:
            assert_rows_of(whole, batch)


def assert_rows_of(whole: Batch, part: Batch) -> None:
    """Each row of a share is the row of the whole batch: images, labels, mixing and soft labels."""
    rows = torch.tensor([whole.positions.tolist().index(each) for each in part.positions.tolist()], dtype=torch.long)
    assert (part.epoch, part.step, part.view, part.steps) == (whole.epoch, whole.step, whole.view, whole.steps)
    if len(rows):
        assert torch.equal(part.images, whole.images[rows])
    pairs = [(part.y, whole.y), (part.y2, whole.y2), (part.lam, whole.lam)]
    pairs += [(vars(part.teachers[0]).get(name), vars(whole.teachers[0]).get(name)) for name in ("classes", "logits")]
    for found, expected in pairs:
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert torch.equal(found, expected[rows])


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 3), (0, 0)])
def test_a_rank_that_there_is_not_is_refused(rank: int, world_size: int) -> None:
    with pytest.raises(InvalidInputError, match=f"rank {rank} was given of {world_size} processes"):
        Loader(digits(10), batch_size=4, epochs=1, feed=FeedOptions(rank=rank, world_size=world_size))
