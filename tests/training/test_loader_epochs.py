"""epochs of a loader: one an iteration, chosen, left and gone on with; workers live on; batches stay the same."""

import gc
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import psutil
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from tests.kits.batches import batches_left
from tests.kits.views import TOPK, digits, extract_store, make_setting, plan_of, teacher_of

ROWS = 200
SMALL = LabelOptions(memory_bytes=3000)  # a window is one block
Rows = list[tuple[int, int, int, list[int]]]


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(ROWS)


@pytest.fixture(scope="module")
def store(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Store:
    setting = make_setting(data, teacher_of(), plan_of(mix="mixup"), TOPK)
    return extract_store(tmp_path_factory.mktemp("stores") / "a.kd", setting, views=3)


@pytest.fixture
def loader_of(data: Data, store: Store) -> Callable[..., Loader]:
    def make(**options: Any) -> Loader:
        chosen: dict[str, Any] = {"batch_size": 32, "epochs": 3, "seed": 4}
        return Loader(data, [store], **{**chosen, **options})

    return make


def rows_of(batches: Any) -> Rows:
    return [(batch.epoch, batch.step, batch.view, batch.positions.tolist()) for batch in batches]


def test_an_iteration_is_an_epoch_with_a_view_and_an_order_of_its_own(loader_of: Callable[..., Loader]) -> None:
    """It once gave view 0 in the same order each time, with epochs=1, and all epochs at once, with more."""
    loader = loader_of(epochs=4)
    epochs = [rows_of(loader) for _ in range(4)]
    assert [{(epoch, view) for epoch, _, view, _ in rows} for rows in epochs] == [
        {(0, 0)},
        {(1, 1)},
        {(2, 2)},
        {(3, 0)},
    ]
    assert [len(rows) for rows in epochs] == [len(loader)] * 4 == [7] * 4
    orders = [[positions for *_, positions in rows] for rows in epochs]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


def test_a_framework_s_three_epochs_are_three(loader_of: Callable[..., Loader]) -> None:
    loader = loader_of(epochs=3)
    batches = [batch for _ in range(3) for batch in loader]
    assert len(batches) == 3 * len(loader)
    assert [batch.progress for batch in batches] == pytest.approx([step / 21 for step in range(21)])
    with pytest.raises(
        InvalidInputError, match=r"epoch 3 was asked for of a loader of 3 epochs.*more epochs.*set_epoch"
    ):
        iter(loader)


def test_set_epoch_chooses_any_epoch_in_any_order(loader_of: Callable[..., Loader]) -> None:
    epochs = [rows_of(islice(batches_left(loader_of()), 7 * epoch, 7 * epoch + 7)) for epoch in range(3)]
    loader = loader_of()
    for epoch in (0, 0, 2, 1, 1, 0):
        loader.set_epoch(epoch)
        assert rows_of(loader) == epochs[epoch]
    assert rows_of(loader) == epochs[1]
    for epoch in (-1, 3):
        with pytest.raises(InvalidInputError, match=f"epoch {epoch} was chosen of 3; choose 0 to 2"):
            loader.set_epoch(epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_left_ends_there(loader_of: Callable[..., Loader], workers: int) -> None:
    every = rows_of(batches_left(loader_of()))
    loader = loader_of(feed=FeedOptions(workers=workers))
    left = iter(loader)
    assert rows_of(islice(left, 3)) == every[:3]
    assert (loader.state_dict()["epoch"], loader.state_dict()["step"]) == (0, 3)
    assert rows_of(loader) == every[7:14]
    with pytest.raises(InvalidInputError, match=r"iterator of epoch 0 was asked for step 3 after iter\(\) began epoch"):
        next(left)
    loader.close()
    assert rows_of(loader) == every[14:]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("labels", [LabelOptions(), SMALL], ids=["whole", "windows"])
@pytest.mark.parametrize("count", [0, 4, 7, 8, 20, 21])
def test_a_state_goes_on_with_the_batch_that_follows(
    loader_of: Callable[..., Loader], labels: LabelOptions, workers: int, count: int
) -> None:
    every = rows_of(batches_left(loader_of(labels=labels)))
    loader, later = (loader_of(labels=labels, feed=FeedOptions(workers=workers)) for _ in range(2))
    assert rows_of(islice(batches_left(loader), count)) == every[:count]
    state = json.loads(json.dumps(loader.state_dict()))
    assert (state["epoch"], state["step"]) == divmod(count, 7)
    later.load_state_dict(state)
    if state["epoch"] < 3:
        later.set_epoch(state["epoch"])  # as a framework does before each epoch, the one that it goes on with too
    assert rows_of(batches_left(later)) == every[count:]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed: the state has 4, this loader has 5"),
        ({"batch_size": 16}, "batch_size: the state has 32, this loader has 16"),
        ({"positions": np.arange(100)}, "positions: the state has 'all 200', this loader has '"),
        ({"labels": SMALL}, "windows: the state has 1, this loader has 4"),
        ({"drop_last": True}, "drop_last: the state has False, this loader has True"),
    ],
    ids=str,
)
def test_a_state_of_other_batches_is_refused(
    loader_of: Callable[..., Loader], changes: dict[str, Any], named: str
) -> None:
    state = loader_of().state_dict()
    with pytest.raises(MismatchError, match=named):
        loader_of(**changes).load_state_dict(state)


@pytest.mark.parametrize("place", [{"epoch": 4}, {"step": 7}, {"epoch": 3, "step": 1}, {"epoch": -1}], ids=str)
def test_a_place_that_there_is_not_is_refused(loader_of: Callable[..., Loader], place: dict[str, int]) -> None:
    loader = loader_of()
    with pytest.raises(InvalidInputError, match="this loader has 3 epochs of 7 steps"):
        loader.load_state_dict(loader.state_dict() | place)


def processes() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def label_threads() -> int:
    return sum(thread.name.startswith("kdcache-labels") for thread in threading.enumerate())


def test_workers_live_on_between_epochs_and_end_with_the_last(loader_of: Callable[..., Loader]) -> None:
    before = processes()
    loader = loader_of(feed=FeedOptions(workers=2))
    seen = []
    for _ in range(3):
        batches = iter(loader)
        next(batches)
        seen.append(processes() - before)
        assert label_threads() <= 1
        list(batches)
    assert [len(workers) for workers in seen] == [2, 2, 2]
    assert seen[0] == seen[1] == seen[2]
    assert (processes() - before, label_threads()) == (set(), 0)


def ended_by_close(loader: Loader) -> None:
    loader.close()


def ended_by_nobody(loader: Loader) -> None:
    """Its last reference goes when this returns."""


@pytest.mark.parametrize("end", [ended_by_close, ended_by_nobody])
def test_nothing_is_left_of_a_loader_that_is_left(
    loader_of: Callable[..., Loader], end: Callable[[Loader], None]
) -> None:
    before = processes()
    loaders = [loader_of(feed=FeedOptions(workers=2))]
    next(iter(loaders[0]))
    assert len(processes() - before) == 2
    gc.disable()  # nothing waits for the collector of circles
    try:
        end(loaders.pop())
        assert processes() == before
    finally:
        gc.enable()
    for thread in threading.enumerate():
        if thread.name.startswith("kdcache-labels"):
            thread.join(timeout=10)
    assert label_threads() == 0


def test_nothing_is_drawn_ahead_without_workers(data: Data, store: Store) -> None:
    drawn = []

    class Counted:
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            drawn.append(index)
            return data.samples[index]

    loader = Loader(replace(data, samples=Counted()), batch_size=50, epochs=2)
    for batch in batches_left(loader):
        assert len(drawn) == (batch.epoch * 4 + batch.step + 1) * 50


def test_labels_of_the_same_view_are_read_once(
    loader_of: Callable[..., Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    views, load = [], Store.load
    monkeypatch.setattr(Store, "load", lambda self, view, *a, **b: views.append(view) or load(self, view, *a, **b))
    loader = loader_of(epochs=5)
    for _ in range(5):
        loader.set_epoch(loader.state_dict()["epoch"])
        list(loader)
    assert views == [0, 1, 2, 0, 1]
    views.clear()
    loader = loader_of(epochs=5, views=ViewSpan.of(1))
    for epoch in (0, 1, 3, 2):
        loader.set_epoch(epoch)
        list(loader)
    assert views == [1]


@pytest.mark.parametrize("batch_size", [7, 32])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_drop_last_gives_exact_batches(loader_of: Callable[..., Loader], batch_size: int, world_size: int) -> None:
    options = {"batch_size": batch_size, "drop_last": True, "epochs": 2}
    alone = list(batches_left(loader_of(**options)))
    assert len(alone) == 2 * (ROWS // batch_size)
    images = {
        (b.epoch, p): b.images[i] for b in batches_left(loader_of(epochs=2)) for i, p in enumerate(b.positions.tolist())
    }
    feeds = [FeedOptions(rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *parts in zip(alone, *(batches_left(loader_of(**options, feed=feed)) for feed in feeds), strict=True):
        assert len(whole.positions) == batch_size == len(set(whole.positions.tolist()))
        sizes = [len(part.positions) for part in parts]
        assert max(sizes) - min(sizes) == (batch_size % world_size > 0)
        assert sorted(np.concatenate([part.positions for part in parts])) == sorted(whole.positions.numpy())
        for part in parts:  # a row whose partner is in no batch is mixed all the same
            assert all((images[part.epoch, p] == part.images[i]).all() for i, p in enumerate(part.positions.tolist()))


def test_batches_that_no_window_can_fill_are_refused(loader_of: Callable[..., Loader]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"exactly 65 rows were asked for; .* of the 200 rows: choose a smaller"
    ):
        loader_of(batch_size=65, labels=SMALL, drop_last=True)


def digest(batches: Any) -> str:
    """The numbers of batches that no processor changes."""
    hashed = hashlib.sha256()
    for batch in batches:
        y2 = None if batch.y2 is None else batch.y2.tolist()
        numbers = [batch.epoch, batch.view, batch.step, batch.steps, batch.epochs, list(batch.shares)]
        hashed.update(
            hashlib.sha256(json.dumps([*numbers, batch.positions.tolist(), batch.y.tolist(), y2]).encode()).digest()
        )
    return hashed.hexdigest()


RECORDED = {  # by the loader that gave all epochs in one iteration
    "windows": "ef4a6e54625ff7148d34815e6339369720d216eebcca9416328af767bde030f5",
    "resumed": "3ef95f4d5246127077a06ee28fd68bd7aa66f75a5672a69e0537b06c31552d2b",
    "subset": "84f9d4b3f4747e889c29e2fab7888b46a534cb8cd12eaac479d511f601ddf7c1",
    "no store": "348acb59ae3f678f622c1161307ece3b07de1f7817cbcb2e7ba76dd32b2707b3",
    "rank 0": "efcfce32d0ca15e58a3c6dd9b97f6ebc85dabd668f4e703036a1b995d04060b5",
    "rank 1": "a45d0421febe73fd901964fe1402136db0f73346b1babbdf821afa55dd74b248",
    "rank 2": "5ad6535c4bfb9a0724c5e55e83dca99be24d4c3f687df6d8c38fdc5851f0dacc",
}


@pytest.mark.parametrize("name", RECORDED)
def test_batches_are_those_that_were_always_dealt(data: Data, store: Store, name: str) -> None:
    subset = np.flatnonzero(np.random.RandomState(1).uniform(size=ROWS) < 0.8)
    options: dict[str, Any] = {"batch_size": 32, "epochs": 3, "seed": 4, "labels": SMALL}
    if name == "subset":
        options = {"batch_size": 7, "epochs": 3, "seed": 2, "positions": subset}
    if name == "no store":
        options = {"batch_size": 33, "epochs": 3, "feed": FeedOptions(plan=plan_of(mix="mixup"))}
    if name.startswith("rank"):
        feed = FeedOptions(rank=int(name[-1]), world_size=3)
        options = {"batch_size": 16, "epochs": 2, "seed": 9, "labels": SMALL, "feed": feed}
    loader = Loader(data, [] if name == "no store" else [store], **options)
    if name == "resumed":
        loader.load_state_dict(loader.state_dict() | {"epoch": 1, "step": 3})
    assert digest(batches_left(loader)) == RECORDED[name]
