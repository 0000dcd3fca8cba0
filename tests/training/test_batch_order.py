"""order: every row once an epoch, a pure function of seed and epoch, pairs dealt whole, windows within a budget."""

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.base.arrays import IntArray
from kdcache.store.plan import partners_of
from kdcache.training.batch_order import BatchOrder
from tests.kits.views import Mix, plan_of

UNHURRIED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def batch_order_of(positions: IntArray, rows: int, mix: Mix = "none", **options: Any) -> BatchOrder:
    chosen: dict[str, Any] = {"cycle": (0, 1, 2), "batch_size": 16, "seed": 1, "block": 64, "window_rows": rows}
    return BatchOrder(positions=positions, rows=rows, plan=plan_of(mix=mix), **{**chosen, **options})


@st.composite
def batch_orders(draw: st.DrawFn) -> BatchOrder:
    rows = draw(st.integers(2, 400))
    keep = draw(st.floats(0.05, 1.0))
    positions = np.flatnonzero(np.random.RandomState(draw(st.integers(0, 99))).uniform(size=rows) <= keep)
    return batch_order_of(
        positions if len(positions) else np.arange(rows),
        rows,
        draw(st.sampled_from(["none", "mixup", "cutmix"])),
        batch_size=draw(st.integers(2, 70)),
        seed=draw(st.integers(0, 9)),
        window_rows=draw(st.sampled_from([1, 64, 100, 128, 1000])),
    )


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_every_row_is_dealt_once_an_epoch(batch_order: BatchOrder, epoch: int) -> None:
    batches = list(batch_order.batches(epoch))
    assert Counter(np.concatenate([batch.positions for batch in batches]).tolist()) == Counter(
        batch_order.positions.tolist()
    )
    assert [batch.step for batch in batches] == list(range(batch_order.steps(epoch)))
    assert {(batch.epoch, batch.view) for batch in batches} == {(epoch, epoch % 3)}


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_mixing_partners_stay_together_where_both_take_part(batch_order: BatchOrder, epoch: int) -> None:
    within = {window.number: set(window.positions.tolist()) for window in batch_order.windows(epoch)}
    for batch in batch_order.batches(epoch):
        partners = partners_of(batch_order.plan, batch.positions, batch.view, batch_order.rows)
        mine = set(batch.positions.tolist())
        assert {p for p in partners.tolist() if p in within[batch.window]} <= mine
        assert mine <= within[batch.window]


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_batches_are_equal_up_to_a_pair(batch_order: BatchOrder, epoch: int) -> None:
    for window in batch_order.windows(epoch):
        sizes = [len(batch.positions) for batch in batch_order.batches(epoch) if batch.window == window.number]
        assert max(sizes) - min(sizes) <= 2
        assert max(sizes) <= batch_order.batch_size + 1
        assert len(sizes) == -(-len(window.positions) // batch_order.batch_size)


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_windows_are_whole_blocks_within_the_budget(batch_order: BatchOrder, epoch: int) -> None:
    windows = batch_order.windows(epoch)
    assert [window.number for window in windows] == list(range(len(windows)))
    blocks_at_once = max(1, batch_order.window_rows // batch_order.block)
    if len(batch_order.positions) <= batch_order.window_rows:
        assert len(windows) == 1
    seen: Counter[int] = Counter()
    for window in windows:
        blocks = np.unique(window.positions // batch_order.block)
        seen.update(blocks.tolist())
        assert (np.diff(window.positions) > 0).all()
        assert np.array_equal(
            window.positions, batch_order.positions[np.isin(batch_order.positions // batch_order.block, blocks)]
        )
        assert len(windows) == 1 or len(blocks) <= blocks_at_once
    assert set(seen.values()) == {1}
    assert set(seen) == set((batch_order.positions // batch_order.block).tolist())


def dealt(batch_order: BatchOrder, epoch: int) -> list[list[int]]:
    return [batch.positions.tolist() for batch in batch_order.batches(epoch)]


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(batch_order: BatchOrder, epoch: int) -> None:
    list(batch_order.batches(epoch + 1))
    np.random.seed(epoch)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    assert dealt(batch_order, epoch) == dealt(batch_order, epoch)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]


def test_epochs_and_seeds_deal_in_other_orders() -> None:
    first, other = (batch_order_of(np.arange(300), 300, seed=seed) for seed in (1, 2))
    orders = [dealt(first, epoch) for epoch in range(4)] + [dealt(other, 0)]
    assert all(orders[i] != orders[j] for i in range(5) for j in range(i))
    windowed = batch_order_of(np.arange(640), 640, window_rows=64)
    blocks = [[int(window.positions[0]) // 64 for window in windowed.windows(epoch)] for epoch in range(3)]
    assert all(sorted(each) == list(range(10)) for each in blocks)
    assert blocks[0] != blocks[1] != blocks[2]


def test_a_batch_is_not_a_run_of_positions() -> None:
    batch = next(batch_order_of(np.arange(640), 640, batch_size=64).batches(0)).positions
    assert len(np.unique(batch // 64)) >= 8
