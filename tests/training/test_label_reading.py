"""windows: each batch gets its rows of the window in memory, and two windows are in memory, never more."""

import tracemalloc

import numpy as np
import pytest
import torch

from kdcache.base.arrays import IntArray
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_options import LabelOptions
from tests.benchmarks.label_side import A_ROW, chunks, row_bytes
from tests.benchmarks.rowstores import Shape, write_row_store
from tests.kits.stores import make_case, write_store

ROWS, VIEWS = 65_536, 3


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_row_store(tmp_path_factory.mktemp("large") / "a.kd", Shape(ROWS, VIEWS, alike=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("small")
    return {mix: write_store(folder / mix, make_case(300, mix=mix, seed=3)) for mix in ("none", "cutmix")}


def batch_order_of(store: Store, positions: IntArray | range, window_rows: int, batch: int = 64) -> BatchOrder:
    block = store.segments[0].layout.block
    return BatchOrder(positions, store.rows, store.identity.plan, store.every_view, batch, 5, block, window_rows)


@pytest.mark.parametrize("mix", ["none", "cutmix"])
@pytest.mark.parametrize("window_rows", [64, 150, 10_000])
@pytest.mark.parametrize("kept", ["all", "some"])
def test_a_batch_gets_its_own_rows(small: dict[str, Store], mix: str, window_rows: int, kept: str) -> None:
    store = small[mix]
    some = np.flatnonzero(np.random.RandomState(0).uniform(size=store.rows) < 0.5)
    batch_order = batch_order_of(store, range(store.rows) if kept == "all" else some, window_rows)
    seen = []
    reading = LabelReading([store, store], batch_order, LabelOptions(), epochs=3)
    for row in batch_order.batches_from(0, 0, 3):
        for rows in reading.rows(row):
            wanted = store.load(row.view, row.positions)
            np.testing.assert_array_equal(rows.positions, row.positions)
            for name, values in wanted.arrays.items():
                np.testing.assert_array_equal(rows.arrays[name], values)
        seen.append((row.epoch, row.positions.tolist()))
    reading.close()
    for epoch in range(3):
        dealt = sorted(position for each, positions in seen if each == epoch for position in positions)
        assert dealt == (list(range(store.rows)) if kept == "all" else some.tolist())


@pytest.mark.parametrize("window_rows", [70, 128, 1000])
def test_a_range_deals_as_its_positions_do(small: dict[str, Store], window_rows: int) -> None:
    whole, listed = (batch_order_of(small["none"], each, window_rows) for each in (range(300), np.arange(300)))
    for epoch in range(3):
        found, wanted = (list(batch_order.batches(epoch)) for batch_order in (whole, listed))
        assert [row.positions.tolist() for row in found] == [row.positions.tolist() for row in wanted]
        assert [row.rows.tolist() for row in found] == [row.rows.tolist() for row in wanted]
        assert whole.steps(epoch) == len(found)


def test_dealing_a_window_does_not_touch_all_positions(large: Store) -> None:
    """A hundred million of them would be 800 MB."""
    batch_order = BatchOrder(range(10**8), 10**8, large.identity.plan, (0,), 256, 0, 8192, 16_384)
    tracemalloc.start()
    row = next(batch_order.batches(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(row.positions), len(np.unique(row.positions // 8192))) == (256, 2)
    assert peak < 4_000_000


@pytest.mark.parametrize("window_rows", [8192, ROWS])
def test_memory_is_flat_in_views_and_two_windows_at_most(large: Store, window_rows: int) -> None:
    bound = (2 * row_bytes(large) + A_ROW) * window_rows + chunks(large) + 300_000
    for epochs in (2, 3 * VIEWS):
        assert window_rows * row_bytes(large) < peak_of(large, window_rows, epochs) < bound


def peak_of(store: Store, window_rows: int, epochs: int) -> int:
    batch_order = batch_order_of(store, range(store.rows), window_rows, 1024)
    tracemalloc.start()
    reading = LabelReading([store], batch_order, LabelOptions(), epochs=epochs)
    for row in batch_order.batches_from(0, 0, epochs):
        reading.rows(row)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reading.close()
    return peak


def test_soft_labels_are_those_of_the_store_under_the_options(small: dict[str, Store]) -> None:
    store = small["cutmix"]
    reading = LabelReading(
        [store, store], batch_order_of(store, range(store.rows), 128), LabelOptions(top_k=2), epochs=1
    )
    for row in batch_order_of(store, range(store.rows), 128).batches(0):
        labels = reading.soft_labels(row.view, reading.rows(row))
        expected = store.read(row.view, row.positions).prefix(2).to()
        assert len(labels) == 2
        for soft in labels:
            for name in ("classes", "logits", "tail", "label"):
                torch.testing.assert_close(vars(soft)[name], vars(expected)[name], rtol=0, atol=0, equal_nan=True)
        assert reading.features(reading.rows(row)) == ()
    reading.close()


@pytest.mark.parametrize("window_rows", [64, 10_000])
def test_a_jump_reads_the_window_that_is_asked_for(small: dict[str, Store], window_rows: int) -> None:
    store = small["none"]
    batch_order = batch_order_of(store, range(store.rows), window_rows)
    reading = LabelReading([store], batch_order, LabelOptions(), epochs=4)
    for epoch in (0, 2, 1, 3, 0, 0):
        row = next(batch_order.batches(epoch))
        expected = store.load(row.view, row.positions)
        for name, values in reading.rows(row)[0].arrays.items():
            np.testing.assert_array_equal(values, expected.arrays[name])
    reading.close()
