"""The joined loader: every row of stores of parts meets its own soft label, once an epoch, wherever it begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, ReplayError, SampleError
from kdcache.labels.encoding import Encoding
from kdcache.objectives.batch import Batch
from kdcache.training.batch_shares import sizes_by_part
from kdcache.training.joined_loader import JoinedLoader, joined_parts
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions
from kdcache.views.data import Data
from kdcache.views.data_parts import part_of
from tests.kits import parts as division
from tests.kits.batches import batches_left
from tests.kits.parts import PARTS, ROWS, Exchanged, Make, joined, keeping, stores_of
from tests.kits.views import (
    FULL,
    TOPK,
    Mix,
    extract_store,
    make_setting,
    plan_of,
    teacher_of,
)
from tests.training.test_loader import require_equal_labels
from tests.training.test_struck_and_sequences import struck_store

data, made = division.data, division.made


def row_places(batch: Batch) -> list[tuple[int, int]]:
    """The store and the position in it, of each row of a batch."""
    return [(0, place) if place < len(PARTS[0]) else (1, place - len(PARTS[0])) for place in batch.positions.tolist()]


def require_equal_batches(one: Batch, other: Batch) -> None:
    """The same rows, pixels and labels to the bit."""
    assert (one.epoch, one.step, one.view, one.shares) == (other.epoch, other.step, other.view, other.shares)
    for name in ("positions", "images", "y", "y2", "lam"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None and right is None) or torch.equal(left, right), name
    require_equal_labels(one.teachers[0], other.teachers[0])


@pytest.mark.parametrize(
    ("encoding", "mix"),
    [(TOPK, "none"), (FULL, "none"), (TOPK, "mixup"), (FULL, "cutmix")],
    ids=["topk", "full", "topk mixup", "full cutmix"],
)
@pytest.mark.parametrize("batch_size", [32, 7])
def test_each_row_has_the_soft_label_and_the_views_of_its_own_store(
    data: Data, made: Make, encoding: Encoding, mix: Mix, batch_size: int
) -> None:
    stores = made(encoding, mix)
    loader = joined(data, stores, batch_size=batch_size)
    alone: dict[Any, Any] = {}  # images, hard labels and weights of each row, as the store's part has them by itself
    for number, store in enumerate(stores):
        for batch in batches_left(Loader(part_of(data, PARTS[number]), [store], batch_size=64, epochs=2)):
            for row, position in enumerate(batch.positions.tolist()):
                mixed = None if batch.lam is None or batch.y2 is None else (batch.y2[row], batch.lam[row])
                alone[number, batch.view, position] = batch.images[row], batch.y[row], mixed
    for epoch in range(3):
        batches = list(loader)
        assert len(batches) == len(loader) == loader.steps(epoch) == -(-ROWS // batch_size)
        dealt = [place for batch in batches for place in row_places(batch)]
        assert sorted(dealt) == [(0, p) for p in range(len(PARTS[0]))] + [(1, p) for p in range(len(PARTS[1]))]
        sizes = [len(batch.positions) for batch in batches]
        assert (sum(sizes), max(sizes) - min(sizes) <= 1) == (ROWS, True)
        shares = [sum(number for number, _ in row_places(batch)) for batch in batches]
        assert max(shares) - min(shares) <= 1  # of the new ones no batch has many, and none is left for the end
        for batch in batches:
            assert batch.shares == (len(batch.positions),)
            places = row_places(batch)
            for number, store in enumerate(stores):
                rows = [row for row, (owner, _) in enumerate(places) if owner == number]
                if not rows:
                    continue
                positions = np.array([places[row][1] for row in rows])
                fields = {name: getattr(batch.teachers[0], name)[rows] for name in batch.teachers[0].BY_ROW}
                require_equal_labels(replace(batch.teachers[0], **fields), store.read(batch.view, positions))
                indices = PARTS[number][store.order[positions]]
                assert batch.y[rows].tolist() == data.labels[indices].tolist()
                for row, position in zip(rows, positions.tolist(), strict=True):
                    image, label, mixed = alone[number, batch.view, position]
                    assert torch.equal(batch.images[row], image)
                    assert batch.y[row] == label
                    if mixed is not None:
                        assert batch.y2 is not None
                        assert batch.lam is not None
                        assert (batch.y2[row], batch.lam[row]) == mixed


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 0), (2, 4), (3, 0)])
def test_what_remains_is_equal_to_the_bit(data: Data, made: Make, workers: int, epoch: int, step: int) -> None:
    stores, options = made(mix="cutmix"), {"seed": 4, "feed": FeedOptions(workers=workers)}
    whole = list(batches_left(joined(data, stores, seed=4)))
    stopped = joined(data, stores, **options)
    done = epoch * len(stopped) + step
    iterator = batches_left(stopped)
    for _ in range(done):
        next(iterator)
    state = stopped.state_dict()
    stopped.close()
    assert (state["epoch"], state["step"]) == (epoch, step)
    resumed = joined(data, stores, **options)
    resumed.load_state_dict(state)
    rest = list(batches_left(resumed))
    assert len(rest) == len(whole) - done
    for one, other in zip(rest, whole[done:], strict=True):
        require_equal_batches(one, other)


def test_an_epoch_that_is_left_and_one_that_is_chosen(data: Data, made: Make) -> None:
    loader, other = joined(data, made()), joined(data, made())
    next(iter(loader))
    second = list(loader)
    assert {batch.epoch for batch in second} == {1}
    other.set_epoch(1)
    for one, again in zip(second, other, strict=True):
        require_equal_batches(one, again)
    with pytest.raises(InvalidInputError, match="epoch 3 was chosen of 3"):
        loader.set_epoch(3)
    list(loader)
    with pytest.raises(InvalidInputError, match="epoch 3 was asked for"):
        iter(loader)


def test_the_order_is_the_seeds_and_parts_are_dealt_apart(data: Data, made: Make, tmp_path: Path) -> None:
    def order(seed: int) -> list[list[int]]:
        return [batch.positions.tolist() for batch in joined(data, made(), seed=seed, epochs=1)]

    assert order(1) == order(1) != order(2)
    halves = (np.arange(0, ROWS, 2), np.arange(1, ROWS, 2))
    stores = stores_of(tmp_path, data, halves)
    loader = JoinedLoader(data, stores, parts=joined_parts(stores, data, ""), batch_size=30, epochs=1)
    for batch in loader:  # parts of one size: the rows of one are not tied to those of the other
        positions = batch.positions.numpy()
        assert sorted(positions[positions < 75]) != sorted(positions[positions >= 75] - 75)


def test_the_epochs_go_through_the_views_asked_for(data: Data, made: Make) -> None:
    loader = joined(data, made(), views=ViewSpan(1, 2), epochs=2)
    assert (loader.cycle, {batch.view for batch in batches_left(loader)}) == ((1,), {1})


def test_repr_and_the_interface_of_a_loader(data: Data, made: Make) -> None:
    loader = joined(data, made(), feed=FeedOptions(workers=2))
    assert repr(loader) == (
        "JoinedLoader(137 + 13 of 150 rows, batch_size 32, 5 steps, next epoch 0 of 3, 3 workers, cpu)"
    )
    assert {tuple(views.shape[1:]) for views in loader.spread_views(4).values()} == {(1, 8, 8)}
    assert (loader.equal_steps, loader.drift, loader.device) == (False, None, "cpu")
    assert loader.plan == made()[0].identity.plan
    loader.settle_steps(True)
    loader.close()
    with pytest.raises(MismatchError, match=r"the state is of another loader"):
        loader.load_state_dict(Loader(data, [], batch_size=32, epochs=3).state_dict())
    with pytest.raises(MismatchError, match=r"seed"):
        loader.load_state_dict(joined(data, made(), seed=9).state_dict())


def test_a_picture_that_was_exchanged_later_ends_all_workers(data: Data, made: Make) -> None:
    """The parts were proven; then a picture of the new part is exchanged behind their back."""
    stores = made()
    parts = joined_parts(stores, data, "")
    parts[1] = replace(parts[1], samples=Exchanged(parts[1], 5))
    loader = JoinedLoader(data, stores, parts=parts, batch_size=32, epochs=2, feed=FeedOptions(workers=2))
    batches, iterator = [], iter(loader)
    with pytest.raises(ReplayError, match=r"part 1\.kd"):
        batches.extend(iterator)
    count = len(batches)
    state = loader.state_dict()
    assert (state["epoch"], state["step"]) == (0, count)  # not the place of the part that was ahead
    assert all(part._stream is None for part in loader.loaders)


def test_struck_samples_are_left_out_and_need_not_be_read(data: Data, tmp_path: Path) -> None:
    """Sample 0 is a probe of the whole data set's identity, and cannot be read any more."""
    settings = [make_setting(part_of(data, part), teacher_of(), plan_of(), keeping(TOPK, data)) for part in PARTS]
    place = int(np.flatnonzero(settings[1].order == 0)[0])
    stores = [
        extract_store(tmp_path / "a.kd", settings[0]),
        struck_store(tmp_path / "b.kd", settings[1], (place,)),
    ]
    loader = joined(data, stores, epochs=1)
    dealt = [place for batch in loader for place in row_places(batch)]
    assert len(dealt) == ROWS - 1
    assert (1, place) not in dealt

    def probe(index: int) -> bytes:
        if index == 0:
            raise OSError("cut")
        return data.probe(index)

    cut = replace(data, probe=probe)
    with pytest.raises(SampleError, match="cut"):
        cut.identity()
    parts = joined_parts(stores, data, "")
    assert JoinedLoader(cut, stores, parts=parts, batch_size=32, epochs=1).data.identity().rows == ROWS


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 80))
def test_sizes_by_part_are_near_equal_and_in_proportion(rows: list[int], batch_size: int) -> None:
    sizes = sizes_by_part(rows, batch_size)
    totals = [sum(batch) for batch in zip(*sizes, strict=True)]
    assert [sum(part) for part in sizes] == rows
    assert len(totals) == -(-sum(rows) // batch_size)
    assert max(totals) - min(totals) <= 1
    assert max(totals) <= batch_size
    for part, count in zip(sizes, rows, strict=True):  # at each batch's end every part is as far as the others
        for stop, done in enumerate(np.cumsum(part).tolist()):
            assert abs(done - count * sum(totals[: stop + 1]) / sum(rows)) <= len(rows)
