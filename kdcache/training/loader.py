"""The loader: batches of replayed views and their soft labels; every row's pixels are compared with the store's.

It joins the order of batches (`BatchOrder`), the drawing of views (`ViewDrawing`), the reading of soft labels
(`LabelReading`) and the comparison of pixels (`ReplayCheck`). Of texts a batch holds whole ones, and counts them.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray, values_digest
from kdcache.base.devices import to_device
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.label_reading import LabelReading
from kdcache.training.loader_inputs import (
    answered_positions,
    chosen_positions,
    deal_values,
    fitting,
    place_of,
    require_same_deal,
    row_bytes,
    view_dataset,
    views_in_turn,
)
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.training.text_batches import as_texts
from kdcache.training.view_drawing import BatchImages, ViewDrawing
from kdcache.views.data import Data
from kdcache.views.replay import ReplayCheck, ReplayGrade, require_decoders
from kdcache.views.texts import rows_of_texts, texts_of_order


class Loader:
    """A loader gives the batches of one epoch an `iter()`, views replayed from the stores' plan, or from `feed.plan`
    without stores. The epoch moves on with each `iter()`, also from an epoch that was left in the middle; `set_epoch`
    chooses it. `len` is the number of batches in an epoch, equal in all epochs. Workers and the reading of soft labels
    go on from one epoch to the next, and end with the last epoch, with `close`, or with the loader.

    Args:
        data: The data set of the stores.
        stores: One, or an ensemble of one data set, order and view plan.
        batch_size: Rows of a batch over all processes.
        epochs: The number of epochs in the whole training, which `Batch.progress` counts by.
        seed: The seed of the order of batches.
        positions: A subset [n] of the store's rows, or texts; all by default, without those struck in one of the views.
        views: Those that epochs use in turn, all by default.
        drop_last: Every batch has exactly `batch_size` rows, and each process as many where their number divides it.
        labels: Options of reading soft labels.
        feed: Options of drawing images.

    Raises MismatchError for other data than the stores', and ReplayError at the first row that is not the teacher's
    view.

    Examples:
        >>> loader = Loader(data, [store], batch_size=64, epochs=2)
        >>> [len(batch.y) for batch in loader]
        [60, 60, 60, 60, 60]
    """

    def __init__(
        self,
        data: Data,
        stores: Sequence[Store] = (),
        *,
        batch_size: int,
        epochs: int,
        seed: int = 0,
        positions: IntArray | None = None,
        views: ViewSpan | None = None,
        drop_last: bool = False,
        labels: LabelOptions = LabelOptions(),  # noqa: B008  frozen
        feed: FeedOptions = FeedOptions(),  # noqa: B008
    ) -> None:
        if not 0 <= feed.rank < feed.world_size:
            raise InvalidInputError(f"rank {feed.rank} was given of {feed.world_size} processes; ranks count from 0")
        data = fitting(stores, data)
        require_decoders(stores, data.decoder, accept_drift=labels.accept_drift)
        self.data, self.stores, self.epochs, self.device = data, tuple(stores), epochs, feed.device
        self.plan = stores[0].identity.plan if stores else feed.plan or ViewPlan(transform=TransformSpec(name="none"))
        order = stores[0].order if stores else np.arange(len(data)) if feed.order is None else feed.order
        self._label_options, self._feed_options = labels, feed
        self._hard_labels, texts = data.labels[order], texts_of_order(order, data.sequence)  # i32
        cycle = views_in_turn(stores, views, epochs)
        self.batch_order = BatchOrder(
            positions=answered_positions(stores, cycle, chosen_positions(positions, len(texts))),
            rows=len(texts),
            plan=self.plan,
            cycle=cycle,
            batch_size=batch_size,
            seed=seed,
            block=stores[0].segments[0].layout.block // data.sequence if stores else len(texts),
            window_rows=max(1, labels.memory_bytes // (2 * max(row_bytes(stores, labels), 1))),
            rank=feed.rank,
            world_size=feed.world_size,
            epochs=epochs,
            drop_last=drop_last,
        )
        self.batch_order.require_batches()
        dataset = view_dataset(stores, data, texts, self.plan, feed, accept_drift=labels.accept_drift)
        self._drawing = ViewDrawing(dataset, feed)
        self.drawings: tuple[ViewDrawing, ...] = (self._drawing,)
        self._reading = self._new_reading()
        rows = rows_of_texts(self.batch_order.positions, data.sequence)
        self._check = ReplayCheck(stores, dataset.afresh(), rows, accept_drift=labels.accept_drift)
        self._stream: Generator[tuple[BatchRows, BatchImages]] | None = None
        self._stream_place = (0, 0)  # epoch and step of the batch that the stream gives next
        self._next_iteration = (0, 0)  # where the next `iter()` begins
        self._iteration, self._place = 0, (0, 0)  # epoch and step of the first batch that nobody has been given
        self._equal_steps: bool | None = None  # None while no run asked, and where all epochs need as many steps

    def __repr__(self) -> str:
        rows, order = len(self.batch_order.positions), self.batch_order
        return (
            f"Loader({rows} of {order.rows} rows, batch_size {order.batch_size}, {len(self)} steps, "
            f"next epoch {self._next_iteration[0]} of {self.epochs}, {len(self.stores)} stores, "
            f"{self._feed_options.workers} workers, {self.device})"
        )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self.steps(max(min(self._place[0], self.epochs - 1), 0))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch. Raises InvalidInputError past the last one, and from an older iterator."""
        epoch, step = self._next_iteration
        if epoch >= self.epochs:
            raise InvalidInputError(
                f"epoch {epoch} was asked for of a loader of {self.epochs} epochs, which count from 0: make it with "
                "more epochs, or choose one of these with set_epoch"
            )
        self._place, self._next_iteration = (epoch, step), (epoch + 1, 0)
        self._iteration += 1
        return self._epoch(epoch, step, self._iteration)

    @property
    def cycle(self) -> tuple[int, ...]:
        """The views that epochs use in turn."""
        return self.batch_order.cycle

    @property
    def drift(self) -> ReplayGrade | None:
        """The worst grade of drift that was accepted; None without any."""
        return self._check.drift

    def steps(self, epoch: int) -> int:
        """The number of batches of an epoch."""
        return self.batch_order.steps(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next `iter()`, from its first batch; the epoch that `load_state_dict` chose goes on
        where that says. Raises InvalidInputError for an epoch that there is not.
        """
        if not 0 <= epoch < self.epochs:
            raise InvalidInputError(f"epoch {epoch} was chosen of {self.epochs}; choose 0 to {self.epochs - 1}")
        if epoch != self._next_iteration[0]:
            self._next_iteration = (epoch, 0)
        self._place = self._next_iteration

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch, `epoch` and `step`, and what must be equal where it goes on. A batch counts as
        done once it has been handed out."""
        return {"epoch": self._place[0], "step": self._place[1], **self._description}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter()` begin at a state's place. Raises MismatchError, naming both values, where the state is
        of a loader that deals otherwise, and InvalidInputError for a place that there is not."""
        require_same_deal(state, self._description)
        self._next_iteration = self._place = place_of(state, self.epochs, self.steps)

    def close(self) -> None:
        """End the workers and the thread, and let go of what was read ahead; the next batch starts them again."""
        self._end_stream()
        self._reading.close()

    def settle_steps(self, equal: bool | None) -> None:
        """Settle for a run that its epochs have equal steps or, as those begun before that rule, the steps that their
        own windows need; None takes either. Raises InvalidInputError where another run has settled the other."""
        if self._equal_steps is None and self.batch_order.has_unequal_needs:
            self._equal_steps = equal is not False
            if not self._equal_steps:
                self.batch_order = replace(self.batch_order, epochs=None)
                self._reading = self._new_reading()
        elif self._equal_steps is not None and equal is not None and equal != self._equal_steps:
            names = {True: "equal steps in all epochs", False: "the steps that each epoch's windows need"}
            raise InvalidInputError(
                f"the run goes on with {names[equal]}, those that share its batches have {names[self._equal_steps]}: "
                "train it alone"
            )

    def deal_by(self, sizes: tuple[int, ...]) -> None:
        """Deal all rows in batches of these sizes. Raises InvalidInputError where a view's soft labels do not fit."""
        if self.batch_order.window_count > 1:
            needed = 2 * row_bytes(self.stores, self._label_options) * len(self.batch_order.positions)
            raise InvalidInputError(
                f"the soft labels of {self.stores[0].folder.root} take {needed} bytes of memory, more than its share: "
                "stores of parts of a data set are read whole; raise --memory-gb"
            )
        self.batch_order = replace(self.batch_order, sizes=sizes, epochs=None)
        self._reading = self._new_reading()

    def spread_views(self, rows: int) -> dict[str, Tensor]:
        """Prepared views [1, ch, H, W] of at most so many samples, spread over the data set, not mixed, by the sample's
        name: input for the network."""
        return self._drawing.spread_views(self.batch_order, rows)

    @property
    def has_unequal_needs(self) -> bool:
        """True where soft labels do not fit in memory, so that epochs need unequal steps."""
        return self.batch_order.has_unequal_needs

    @property
    def equal_steps(self) -> bool:
        """True where a run has settled equal steps for epochs that need unequal ones."""
        return bool(self._equal_steps)

    def _new_reading(self) -> LabelReading:
        options = self._label_options
        return LabelReading(self.stores, self.batch_order, options, epochs=self.epochs, device=self.device)

    @cached_property
    def _positions_digest(self) -> str:
        positions = self.batch_order.positions
        return f"all {len(positions)}" if isinstance(positions, range) else values_digest(positions)

    @property
    def _description(self) -> dict[str, Any]:
        """The values by which two loaders deal the same batches."""
        return {"positions": self._positions_digest, **deal_values(self.batch_order)}

    def _epoch(self, epoch: int, first_step: int, iteration: int) -> Iterator[Batch]:
        """The batches of an epoch from a step on, for the iterator of that number."""
        for step in range(first_step, self.steps(epoch)):
            if iteration != self._iteration:
                raise InvalidInputError(
                    f"the iterator of epoch {epoch} was asked for step {step} after iter() began epoch "
                    f"{self._place[0]}; one loader gives one epoch at a time: make a second loader"
                )
            yield self._next_batch(epoch, step)

    def _next_batch(self, epoch: int, step: int) -> Batch:
        """The batch of a place, from the stream where it stands there, else from a new one."""
        if self._stream is None or self._stream_place != (epoch, step):
            self._end_stream()
            self._stream = self._drawing.stream(self.batch_order.batches_from(epoch, step, self.epochs))
        try:
            batch = self._batch(*next(self._stream))
        except BaseException:  # a row that does not replay, say: workers must not wait for ever
            self.close()
            raise
        following = (epoch, step + 1) if step + 1 < self.steps(epoch) else (epoch + 1, 0)
        self._place = self._stream_place = following
        if following == (self.epochs, 0):
            self.close()
        return batch

    def _batch(self, batch: BatchRows, views: BatchImages) -> Batch:
        """One batch of a share's rows and their images, compared with the stores' and with their soft labels."""
        encoded_rows = self._reading.rows(batch)
        stored_pixels = [rows.arrays["pixels"] for rows in encoded_rows if len(batch.positions)]
        views = self._drawing.compared(batch, views, partial(self._check.compare_all, batch.view, stored_pixels))
        mixes, positions = self.plan.mix != "none", rows_of_texts(batch.positions, self.data.sequence)
        flat = Batch(
            images=views.images,
            y=self._labels(positions),
            y2=self._labels(views.partners) if mixes else None,
            lam=to_device(torch.from_numpy(views.lam).float(), self.device) if mixes else None,
            positions=torch.from_numpy(positions),
            view=batch.view,
            epoch=batch.epoch,
            step=batch.step,
            teachers=self._reading.soft_labels(batch.view, encoded_rows),
            features=self._reading.features(encoded_rows),
            steps=self.steps(batch.epoch),
            epochs=self.epochs,
            shares=batch.shares,
            taps=self._reading.taps(encoded_rows),
            negatives=self._reading.negatives(batch, self._hard_labels),
        )
        return as_texts(flat, self.data.sequence)

    def _labels(self, positions: IntArray) -> Tensor:
        return to_device(torch.from_numpy(self._hard_labels[positions].astype(np.int64)), self.device)

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
