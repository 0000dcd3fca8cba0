"""The loader: batches of replayed views and their soft labels; every row's pixels are compared with the store's.

    loader = Loader(data, stores=[Store.open("teacher.kd")], batch_size=256, epochs=10)
    for batch in loader:
        loss = objective(network(batch.images), batch)

Shape letters: B rows, C classes, D features' width, [ch, H, W] of an image.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.devices import to_device
from kdcache.base.records import require_equal
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.objectives.batch import Batch
from kdcache.store.plan import Mixing, TransformSpec, ViewPlan
from kdcache.store.rows import EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.label_windows import DEFAULT_MEMORY, LabelWindows
from kdcache.views.draw import Drawn, ViewDataset, ViewRequest, draw_requests
from kdcache.views.mixing import mix_rows, with_partners
from kdcache.views.replay import ExcusedDrift, ReplayGrade, require_decoder, require_replay
from kdcache.views.sources import Data
from kdcache.views.transforms import Transform, stored_transform


class Loader:
    """Batches of epochs `start_epoch` to `epochs`, views replayed from the stores' plan, or from `plan` without stores.

    data: the data set that the stores were extracted from; a difference raises MismatchError before the first batch.
    stores: one, or an ensemble of one data set, order and view plan. transform: only where the plan's is a user's own.
    positions: a subset of the store's rows [n], all by default. views: those that epochs use in turn, all by default.
    memory_bytes: a view's soft labels up to this size are in memory whole; above it blocks are shuffled.
    accept_drift: go on where the canary shows that pixels are a few levels off; `drift` then holds the grade.
    class_means: hand on the stores' class means, which tail "class-mean" needs.
    rank, world_size: this process draws and reads its share of each batch, see `share_sizes`; batch_size counts the
    rows of all processes. Raises ReplayError at the first row that is not the view the teacher saw.
    """

    def __init__(
        self,
        data: Data,
        *,
        stores: Sequence[Store] = (),
        batch_size: int,
        epochs: int,
        start_epoch: int = 0,
        start_step: int = 0,
        seed: int = 0,
        plan: ViewPlan | None = None,
        transform: Transform | None = None,
        order: IntArray | None = None,
        positions: IntArray | None = None,
        views: ViewSpan | None = None,
        workers: int = 0,
        device: str = "cpu",
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        memory_bytes: int = DEFAULT_MEMORY,
        accept_drift: bool = False,
        features: bool = False,
        top_k: int | None = None,
        class_means: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise InvalidInputError(f"rank {rank} was given of {world_size} processes; ranks are 0 to {world_size - 1}")
        require_fit(stores, data)
        for store in stores:
            name = str(store.folder.root)
            require_decoder(store.manifest.provenance, data.decoder, store=name, accept_drift=accept_drift)
        self.data = data
        self.stores = tuple(stores)
        self.plan = stores[0].identity.plan if stores else plan or ViewPlan(transform=TransformSpec(name="none"))
        self.order = stores[0].order if stores else np.arange(len(data)) if order is None else order
        self.labels = data.labels[self.order].astype(np.int64)
        self.dataset = ViewDataset(
            data.samples, self.order, self.plan, transform or stored_transform(self.plan.transform)
        )
        self.epochs, self.start_epoch, self.start_step = epochs, start_epoch, start_step
        self.device, self.workers = device, workers
        self.mean, self.std = mean, std
        self.accept_drift, self.features, self.top_k = accept_drift, features, top_k
        self.class_means = class_means
        self.drift: ReplayGrade | None = None
        self._excused: dict[tuple[int, int], ExcusedDrift] = {}  # by (number of the store, view)
        rows = len(self.order)
        self.batch_order = BatchOrder(
            positions=_positions(positions, rows),
            rows=rows,
            plan=self.plan,
            cycle=_cycle(stores, views, epochs),
            batch_size=batch_size,
            seed=seed,
            block=stores[0].segments[0].layout.block if stores else rows,
            window_rows=max(1, memory_bytes // (2 * max(_row_bytes(stores), 1))),
            rank=rank,
            world_size=world_size,
        )
        self._preparation: Preparation | None = None
        self._epoch_steps: tuple[int, int] | None = None  # epoch, its steps

    def steps(self, epoch: int) -> int:
        """The number of batches of an epoch."""
        if self._epoch_steps is None or self._epoch_steps[0] != epoch:
            self._epoch_steps = (epoch, self.batch_order.steps(epoch))
        return self._epoch_steps[1]

    def one_view(self) -> Tensor:
        """A prepared view [1, ch, H, W] of one sample, not mixed: an input for the network."""
        view = self.batch_order.cycle[0]
        return self._prepared(self.dataset[ViewRequest(ViewSpan.of(view), np.zeros(1, dtype=np.int64))].images[0])

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-labels") as thread:
            windows = LabelWindows(
                self.stores, self.batch_order, epochs=self.epochs, features=self.features, thread=thread
            )
            items = draw_requests(self.dataset, _requests(self), self.workers)
            for batch in _batches_left(self):
                item = next(items) if len(batch.positions) else None
                yield self._batch(batch, item, windows.at(batch))
            assert next(items, None) is None

    def _batch(self, batch: BatchRows, item: Drawn | None, windows: "tuple[EncodedRows, ...]") -> Batch:
        """One batch, from its drawn view and each store's window; `item` is None for a share without rows."""
        count = len(batch.positions)
        rows_by_store = [window.take(batch.rows, positions=batch.positions) for window in windows]
        if item is None:
            images, mixing = torch.empty(0, 1, 1, 1, device=self.device), _empty_mixing()
        else:
            for number, rows in enumerate(rows_by_store):
                self._compare(number, batch, item.pixels[0, :count], rows)
            mixing = item.mixing[0]
            images = mix_rows(self._prepared(item.images[0]), mixing, item.request.positions, count, self.plan.mix)
        y = to_device(torch.from_numpy(self.labels[batch.positions]), self.device)
        mixes = self.plan.mix != "none"
        y2 = to_device(torch.from_numpy(self.labels[mixing.partners[:count]]), self.device) if mixes else None
        lam = to_device(torch.from_numpy(mixing.lam[:count]).float(), self.device) if mixes else None
        features = tuple(
            to_device(torch.from_numpy(rows.arrays["features"]), self.device) for rows in rows_by_store if self.features
        )
        return Batch(
            images, y, y2, lam, torch.from_numpy(batch.positions), batch.view, batch.epoch, batch.step,
            tuple(self._soft_labels(number, batch.view, rows) for number, rows in enumerate(rows_by_store)), features,
            self.steps(batch.epoch), self.epochs, batch.shares,
        )  # fmt: skip

    def _soft_labels(self, number: int, view: int, rows: EncodedRows) -> SoftLabels:
        soft_labels = rows.soft_labels() if self.top_k is None else rows.soft_labels().prefix(self.top_k)
        store = self.stores[number]
        if self.class_means and not store.identity.encoding.COMPLETE:
            soft_labels = soft_labels.with_class_means(store.class_means(view))
        return soft_labels.to(self.device)

    def _prepared(self, images: Tensor) -> Tensor:
        if self._preparation is None:
            mean, std = default_normalisation(images.shape[1])
            self._preparation = Preparation(self.mean or mean, self.std or std, self.device)
        return self._preparation(images)

    def _compare(self, number: int, batch: BatchRows, pixels: Any, rows: EncodedRows) -> None:
        """Compare drawn `pixels` [B] u8 with a store's. Drift is judged once a store and view: drift that is excused in
        one view says nothing of the others. Raises ReplayError as `require_replay` does."""
        differing_rows = np.flatnonzero(pixels != rows.arrays["pixels"])
        key = (number, batch.view)
        if len(differing_rows) and key not in self._excused:
            grade = require_replay(
                self.stores[number],
                self.dataset,
                view=batch.view,
                position=int(batch.positions[differing_rows[0]]),
                accept_drift=self.accept_drift,
            )
            self._excused[key] = ExcusedDrift(grade)
            if self.drift is None or grade.levels > self.drift.levels:
                self.drift = grade
        if key in self._excused:
            self._excused[key].count(len(pixels), len(differing_rows), batch.view)


def require_fit(stores: Sequence[Store], data: Data) -> None:
    """Stores must be of this data set, and of one order and view plan. Raises MismatchError or MissingBlockError."""
    identity = data.identity() if stores else None
    for store in stores:
        assert identity is not None
        name = str(store.folder.root)
        advice = "train on the data set that the store was extracted from, or extract a store for this one"
        require_equal(store.identity.dataset, identity, f"{name} is of another data set:", advice, "dataset.")
        advice = "an ensemble needs stores of one order and one view plan: extract with the same seed and transform"
        first = stores[0].identity
        require_equal(first.order, store.identity.order, f"{name} has another order:", advice, "order.")
        require_equal(first.plan, store.identity.plan, f"{name} has another view plan:", advice, "views.")
        if store.identity.teacher.classes != first.teacher.classes:
            raise InvalidInputError(f"{name} has {store.identity.teacher.classes} classes, not {first.teacher.classes}")
        if not store.every_view:
            raise MissingBlockError(f"{name} has no views yet; run kdcache extract")


def _positions(positions: IntArray | None, rows: int) -> IntArray | range:
    """Ascending positions, all by default. Raises InvalidInputError for none, for a row twice or outside."""
    if positions is None:
        return range(rows)
    positions = np.sort(np.asarray(positions, dtype=np.int64))
    count = len(positions)
    if not count or positions[0] < 0 or positions[-1] >= rows or len(np.unique(positions)) < count:
        span = f"{count} positions from {positions[0]} to {positions[-1]}" if count else "no positions"
        raise InvalidInputError(f"{span} were given; give each of some positions 0 to {rows - 1} once")
    return positions


def _cycle(stores: Sequence[Store], views: ViewSpan | None, epochs: int) -> tuple[int, ...]:
    """Views that epochs use in turn: those asked for, or all that the stores have in common."""
    views = None if views is None else ViewSpan.parse(views)
    if not stores:
        return tuple(views or range(max(epochs, 1)))
    common_views = sorted(set.intersection(*(set(store.every_view) for store in stores)))
    if not common_views:
        lists = "; ".join(f"{store.folder.root} has {list(store.every_view)}" for store in stores)
        raise InvalidInputError(f"the stores have no view in common: {lists}; extract the same views for both")
    if views is not None and (absent_views := [view for view in views if view not in common_views]):
        raise InvalidInputError(
            f"views {views} were asked for; the stores have {common_views[:20]} in common, not {absent_views[:20]}: "
            "choose among these, or extract more"
        )
    return tuple(views or common_views)


def _row_bytes(stores: Sequence[Store]) -> int:
    """Bytes in memory of one row of one view over all stores."""
    total = 0
    for store in stores:
        arrays = store.segments[0].layout.arrays
        total += sum(
            int(np.prod(spec.shape[1:])) // spec.shape[spec.block_axis] * np.dtype(spec.dtype).itemsize
            for spec in arrays.values()
            if spec.block_axis is not None
        )
    return total


def _batches_left(loader: Loader) -> Iterator[BatchRows]:
    """The batches left of the run, a window at a time: an epoch's batches are never all in memory."""
    for epoch in range(loader.start_epoch, loader.epochs):
        for batch in loader.batch_order.batches(epoch):
            if epoch > loader.start_epoch or batch.step >= loader.start_step:
                yield batch


def _requests(loader: Loader) -> Iterator[ViewRequest]:
    """A request for each batch that has rows, with the partners that are drawn only to be mixed in."""
    for batch in _batches_left(loader):
        if len(batch.positions):
            positions = with_partners(loader.plan, batch.positions, batch.view, len(loader.order))
            yield ViewRequest(ViewSpan.of(batch.view), positions)


def _empty_mixing() -> Mixing:
    """The mixing of no rows."""
    empty = np.empty(0, dtype=np.int64)
    return Mixing(empty, np.empty(0), empty.reshape(0, 4))
