"""order: every row once an epoch, a pure function of seed and epoch, pairs dealt whole, windows within a budget."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.base.arrays import IntArray
from kdcache.store.plan import partners_of
from kdcache.training.batch_order import BatchOrder, BatchRows
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


def grid() -> Iterator[BatchOrder]:
    """Orders of many kinds."""
    for rows, mix, size, window_rows, world_size, share in product(
        (130, 700), ("none", "mixup"), (7, 33, 100), (64, 128, 10**6), (1, 3), (1.0, 0.6)
    ):
        chosen = np.flatnonzero(np.random.RandomState(rows).uniform(size=rows) < share)
        positions = range(rows) if share == 1.0 else chosen
        rank = world_size // 2
        yield BatchOrder(positions, rows, plan_of(mix=mix), (0, 1, 2), size, 5, 64, window_rows, rank, world_size)


def numbers(batch: BatchRows) -> list[Any]:
    head = [batch.epoch, batch.view, batch.step, batch.window]
    return [*head, batch.positions.tolist(), batch.rows.tolist(), list(batch.shares)]


def test_orders_are_those_that_were_always_dealt() -> None:
    """Recorded before epochs had equal steps; those whose epochs had them are dealt as they were."""
    hashed, equal = hashlib.sha256(), 0
    for order in grid():
        batches = [[numbers(batch) for batch in order.batches(epoch)] for epoch in range(3)]
        hashed.update(json.dumps(batches).encode())
        if len({len(epoch) for epoch in batches}) == 1:
            levelled = replace(order, epochs=3)
            assert not levelled.has_unequal_needs
            assert [[numbers(batch) for batch in levelled.batches(epoch)] for epoch in range(3)] == batches
            equal += 1
    assert hashed.hexdigest() == "50b5e2dcb955c3599f2e9bcdcaa61902ad1918063631203fd620f0428e9c9563"
    assert equal > 50


@UNHURRIED
@given(batch_orders())
def test_epochs_have_equal_steps(batch_order: BatchOrder) -> None:
    """As many as the epoch that needs most, each row once, no batch empty or larger than it was."""
    order = replace(batch_order, epochs=5)
    epochs = [list(order.batches(epoch)) for epoch in range(5)]
    needs = [len(list(batch_order.batches(epoch))) for epoch in range(5)]
    assert {len(batches) for batches in epochs} == {max(needs)} == {order.steps(3)}
    assert order.has_unequal_needs == (len(set(needs)) > 1)
    for batches, need in zip(epochs, needs, strict=True):
        sizes = [len(batch.positions) for batch in batches]
        assert 1 <= min(sizes) <= max(sizes) <= order.batch_size + 1
        assert sorted(np.concatenate([batch.positions for batch in batches])) == list(order.positions)
        if need == max(needs):
            epoch = batches[0].epoch
            assert list(map(numbers, batches)) == [numbers(batch) for batch in batch_order.batches(epoch)]


def test_epochs_that_need_fewer_steps_split_their_largest_batches() -> None:
    order = batch_order_of(np.arange(264), 264, batch_size=100, window_rows=128, epochs=6)
    assert order.has_unequal_needs
    needs = [order._needed_steps(epoch) for epoch in range(6)]
    sizes = [[len(batch.positions) for batch in order.batches(epoch)] for epoch in range(6)]
    assert {sum(need) for need in needs} == {4, 5}
    assert {len(epoch) for epoch in sizes} == {5} == {order.steps(0)}
    assert all(max(epoch) < 100 for epoch in sizes)


@UNHURRIED
@given(batch_orders(), st.integers(0, 4))
def test_exact_batches_split_a_pair_only_where_they_must(batch_order: BatchOrder, epoch: int) -> None:
    order = replace(batch_order, epochs=5, drop_last=True)
    batches = list(order.batches(epoch))
    assert len(batches) == order.steps(epoch) == order.steps(0)
    dealt = np.concatenate([np.empty(0, dtype=np.int64), *(batch.positions for batch in batches)])
    assert {len(batch.positions) for batch in batches} <= {order.batch_size}
    assert len(set(dealt.tolist())) == len(dealt)
    assert set(dealt.tolist()) <= set(np.asarray(order.positions).tolist())
    for batch in batches:
        window = order.window(epoch, batch.window)
        partners = partners_of(order.plan, batch.positions, batch.view, order.rows)
        mates = np.isin(partners, window.positions) & (partners != batch.positions)
        split = mates & ~np.isin(partners, batch.positions)
        assert split.sum() <= order.batch_size % 2 * 2
        assert window.positions[batch.rows].tolist() == batch.positions.tolist()
