"""Reading features, taps and negatives: a batch gets the rows of each store, whatever their widths and the windows."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.labels.encoding import Tap
from kdcache.labels.full import FullEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.objectives.batch import Negatives
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder
from kdcache.training.joined_rows import joined_negatives, joined_taps
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_options import LabelOptions
from tests.kits.labels import batch_of
from tests.kits.stores import make_case, write_store

ROWS = 300
WIDE: Any = (Tap(name="layer1", shape=(2, 3)), Tap(name="layer2@1x1", shape=(4, 1, 1)))
NARROW: Any = (Tap(name="layer1", shape=(5,)),)
ENCODINGS = {"wide": FullEncoding(taps=WIDE, features=7), "narrow": TopKEncoding(k=3, taps=NARROW, features=2)}
NAMES = (("layer2@1x1", "layer1"), ("features", "layer1"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Store]]:
    """By mix, two stores of one data set whose taps of one name differ in width."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        mix: [
            write_store(folder / f"{mix}-{name}", make_case(ROWS, mix=mix, encoding=encoding))
            for name, encoding in ENCODINGS.items()
        ]
        for mix in ("none", "mixup")
    }


def order_of(store: Store, window_rows: int, *, rank: int = 0, world_size: int = 1) -> BatchOrder:
    shape = (range(store.rows), store.rows, store.identity.plan, store.every_view, 64, 5)
    return BatchOrder(*shape, store.segments[0].layout.block, window_rows, rank=rank, world_size=world_size)


@pytest.mark.parametrize("mix", ["none", "mixup"])
@pytest.mark.parametrize("window_rows", [64, 150, 10_000])
def test_taps_of_each_store_are_those_of_its_rows(stores: dict[str, list[Store]], mix: str, window_rows: int) -> None:
    both = stores[mix]
    order, options = order_of(both[0], window_rows), LabelOptions(taps=NAMES)
    reading, count = LabelReading(both, order, options, epochs=2), 0
    for batch in order.batches_from(0, 0, 2):
        rows = reading.rows(batch)
        assert reading.features(rows) == ()
        for store, names, taps in zip(both, NAMES, reading.taps(rows), strict=True):
            expected = store.load(
                batch.view, batch.positions, features=True, taps=[name for name in names if name != "features"]
            )
            assert tuple(taps) == names
            for name, values in taps.items():
                wanted = expected.arrays["features"] if name == "features" else expected.tap(name)
                assert (values.dtype, tuple(values.shape)) == (torch.float16, wanted.shape)
                np.testing.assert_array_equal(values.numpy(), wanted)
        count += len(batch.positions)
    reading.close()
    assert count == 2 * ROWS


def test_only_what_is_asked_for_is_read(stores: dict[str, list[Store]]) -> None:
    order = order_of(stores["none"][0], 128)
    batch = next(order.batches(0))
    asked = {
        LabelOptions(): ([], []),
        LabelOptions(taps=(("layer1",), ())): (["taps.0"], []),
        LabelOptions(features=True): (["features"], ["features"]),
        LabelOptions(taps=NAMES): (["taps.0", "taps.1"], ["features", "taps.0"]),
    }
    for options, expected in asked.items():
        reading = LabelReading(stores["none"], order, options, epochs=1)
        for part, names in zip(reading.rows(batch), expected, strict=True):
            assert sorted(name for name in part.arrays if name.startswith(("features", "taps"))) == names
        reading.close()


def negatives_of(both: list[Store], order: BatchOrder, options: LabelOptions, epochs: int = 2) -> list[Any]:
    """(batch, its negatives) of some epochs."""
    reading = LabelReading(both, order, options, epochs=epochs)
    pairs = [(batch, reading.negatives(batch, both[0].labels)) for batch in order.batches_from(0, 0, epochs)]
    reading.close()
    return pairs


@pytest.mark.parametrize("mix", ["none", "mixup"])
@pytest.mark.parametrize("window_rows", [64, 10_000])
def test_negatives_are_rows_of_the_batch_s_view(stores: dict[str, list[Store]], mix: str, window_rows: int) -> None:
    both = stores[mix]
    options = LabelOptions(features=True, negatives=50)
    seen = set()
    for batch, negatives in negatives_of(both, order_of(both[0], window_rows), options):
        positions = negatives.positions.numpy()
        assert len(positions) == 50
        seen |= set(positions.tolist())
        labels = np.full(50, -1) if mix != "none" else both[0].labels[positions]
        np.testing.assert_array_equal(negatives.y.numpy(), labels)
        for store, features in zip(both, negatives.features, strict=True):
            expected = store.load(batch.view, positions, features=True).arrays["features"]
            np.testing.assert_array_equal(features.numpy(), expected)
    assert len(seen) > ROWS / 2


def test_negatives_hang_on_the_step_alone(stores: dict[str, list[Store]]) -> None:
    """Another epoch's or step's differ, fewer are the first of more, and processes draw the same."""
    both, options = stores["none"], LabelOptions(features=True, negatives=40)
    many = negatives_of(both, order_of(both[0], 10_000), options)
    again = negatives_of(both, order_of(both[0], 10_000), options)
    few = negatives_of(both, order_of(both[0], 10_000), LabelOptions(features=True, negatives=8))
    drawn = [tuple(negatives.positions.tolist()) for _, negatives in many]
    assert drawn == [tuple(negatives.positions.tolist()) for _, negatives in again]
    assert [positions[:8] for positions in drawn] == [tuple(negatives.positions.tolist()) for _, negatives in few]
    assert len(set(drawn)) == len(drawn)
    ranks = [negatives_of(both, order_of(both[0], 10_000, rank=rank, world_size=2), options) for rank in range(2)]
    for (_, left), (_, right) in zip(*ranks, strict=True):
        assert torch.equal(left.positions, right.positions)
        assert all(map(torch.equal, left.features, right.features))


def test_none_are_drawn_unasked(stores: dict[str, list[Store]]) -> None:
    pairs = negatives_of(stores["none"], order_of(stores["none"][0], 64), LabelOptions(features=True), epochs=1)
    assert {negatives for _, negatives in pairs} == {None}


def test_negatives_of_a_view_that_does_not_fit_are_a_part_of_it(stores: dict[str, list[Store]]) -> None:
    """A quarter of the memory: rows of 2 x (7 + 2) bytes, the same ones in all batches of a view."""
    both = stores["none"]
    options = LabelOptions(features=True, negatives=400, memory_bytes=4 * 18 * 30)
    by_view: dict[tuple[int, int], set[int]] = {}
    for batch, negatives in negatives_of(both, order_of(both[0], 64), options):
        by_view.setdefault((batch.epoch, batch.view), set()).update(negatives.positions.tolist())
    assert [len(positions) for positions in by_view.values()] == [30, 30]
    assert len(set.union(*by_view.values())) > 30


def test_two_windows_of_taps_are_in_memory_at_most(tmp_path: Path) -> None:
    rows, row_bytes = 2048, 2 * 2048
    encoding = TopKEncoding(k=1, taps=(Tap(name="a", shape=(2, 1024)), Tap(name="b", shape=(2, 1024))))
    case = make_case(rows, classes=2051, views=1, encoding=encoding)
    store = write_store(tmp_path / "a.kd", case)
    order, options = order_of(store, 256), LabelOptions(taps=(("a",),))
    tracemalloc.start()
    reading = LabelReading([store], order, options, epochs=2)
    for batch in order.batches_from(0, 0, 2):
        reading.taps(reading.rows(batch))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reading.close()
    assert 256 * row_bytes < peak < rows * row_bytes / 2


def test_parts_are_joined_row_after_row() -> None:
    """Taps by name, and negatives whose positions count on."""
    parts = [({"a": torch.full((n, 2), float(n)), "b": torch.full((n, 1, 3), -1.0)},) for n in (2, 3)]
    (joined,) = joined_taps(parts)
    assert joined["a"][:, 0].tolist() == [2, 2, 3, 3, 3]
    assert joined["b"].shape == (5, 1, 3)
    assert joined_taps([(), ()]) == ()
    drawn = [Negatives(torch.tensor([1, 0]), torch.tensor([4, n]), (torch.full((2, 3), float(n)),)) for n in (5, 6)]
    batches = [batch_of(y=torch.zeros(2, dtype=torch.long), negatives=each) for each in drawn]
    whole = joined_negatives(batches, (0, 100))
    assert whole is not None
    assert whole.positions.tolist() == [1, 0, 101, 100]
    assert whole.y.tolist() == [4, 5, 4, 6]
    assert whole.features[0][:, 0].tolist() == [5, 5, 6, 6]
    without = [batch_of(y=torch.zeros(2, dtype=torch.long)) for _ in range(2)]
    assert joined_negatives(without, (0, 100)) is None
