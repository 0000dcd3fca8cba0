"""The reading of soft labels: those of the window in use are in memory, while a thread reads the next window.

Memory: two windows, of a size that the batch order sets, and the buffers of a reading.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.devices import to_device
from kdcache.base.tap_names import FEATURES
from kdcache.labels.soft_labels import SoftLabels
from kdcache.objectives.batch import Negatives
from kdcache.store.plan import key_word
from kdcache.store.reading import Array, EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.loader_options import LabelOptions
from kdcache.views.texts import rows_of_texts

Rows = tuple[EncodedRows, ...]


class LabelReading:
    """Soft labels of batches, from the rows of every store in the window that a batch belongs to.

    `epochs`: the number after which nothing is read ahead. Raises MissingBlockError where a store is a copy that was
    made without taps which the options read.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        batch_order: BatchOrder,
        options: LabelOptions,
        *,
        epochs: int,
        device: str = "cpu",
    ) -> None:
        self.options, self.device = options, device
        self._stores, self._batch_order, self._epochs = tuple(stores), batch_order, epochs
        for number, store in enumerate(stores):
            arrays = [store.identity.encoding.tap_array(name) for name in options.outputs_of(number)[1]]
            for view in batch_order.cycle:
                store.segment_of(view).require_held(arrays)
        self._sequence = stores[0].identity.dataset.sequence if stores else 1
        self._thread: ThreadPoolExecutor | None = None
        self._current: Rows = ()
        self._key: tuple[int, int] | None = None
        self._bank_key: tuple[int, int] | None = None
        self._bank_rows: tuple[IntArray, tuple[Array, ...]] | None = None
        self._ahead: tuple[tuple[int, int], Future[Rows]] | None = None

    def rows(self, batch: BatchRows) -> Rows:
        """A batch's rows of each store, encoded. After a jump to another epoch the window is read when it is asked
        for."""
        rows, positions = (rows_of_texts(places, self._sequence) for places in (batch.rows, batch.positions))
        return tuple(window.take(rows, positions=positions) for window in self._window(batch))

    def soft_labels(self, view: int, rows: Rows) -> tuple[SoftLabels, ...]:
        """The soft labels of each store on the device, from encoded rows of a view."""
        return tuple(self._decoded(store, view, part) for store, part in zip(self._stores, rows, strict=True))

    def features(self, rows: Rows) -> tuple[Tensor, ...]:
        """The features [B, D] of each store on the device; empty where the options do not ask for them."""
        parts = rows if self.options.features else ()
        return tuple(self._on_device(part.arrays[FEATURES]) for part in parts)

    def taps(self, rows: Rows) -> tuple[dict[str, Tensor], ...]:
        """The taps [B, ...] of each store on the device, by name; empty where the options name none."""
        parts = rows if self.options.taps else ()
        return tuple(
            {name: self._on_device(_tap(part, name)) for name in self.options.taps[number]}
            for number, part in enumerate(parts)
        )

    def negatives(self, batch: BatchRows, labels: Array) -> Negatives | None:
        """Rows drawn for a batch with replacement, on the device; None where the options ask for none. `labels` [N] are
        hard labels."""
        if not self.options.negatives:
            return None
        positions, parts = self._bank(batch)
        generator = np.random.default_rng(key_word(self._batch_order.seed, batch.epoch, batch.step, "negatives"))
        places = generator.integers(len(positions), size=self.options.negatives)  # fewer would be the first of these
        count = len(places)
        chosen = positions[places]
        mixes = self._batch_order.plan.mix != "none"
        y = np.full(count, -1, np.int64) if mixes else labels[chosen].astype(np.int64)  # a mixed row is of two classes
        features = tuple(self._on_device(part[places]) for part in parts)
        return Negatives(torch.from_numpy(chosen), self._on_device(y), features)

    def close(self) -> None:
        """Let go of the windows and end the thread; the next batch begins anew."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread, self._current, self._key, self._ahead = None, (), None, None
        self._bank_key, self._bank_rows = None, None

    def _on_device(self, values: Array) -> Tensor:
        return to_device(torch.from_numpy(np.ascontiguousarray(values)), self.device)

    def _bank(self, batch: BatchRows) -> tuple[IntArray, tuple[Array, ...]]:
        """Positions [M] of the view and their features [M, D] of each store: those of the window where it has all rows,
        else as many as fit into a quarter of the memory, the same on every process."""
        order = self._batch_order
        if order.window_count == 1 == order.world_size:
            window = self._window(batch)
            return window[0].positions, tuple(part.arrays[FEATURES] for part in window)
        if self._bank_key != (key := (batch.epoch, batch.view)):
            width = sum(2 * store.identity.encoding.features for store in self._stores)
            count = max(1, min(len(order.positions), self.options.memory_bytes // (4 * max(width, 1))))
            generator = np.random.default_rng(key_word(order.seed, batch.epoch, batch.view, "bank"))
            places = np.sort(generator.choice(len(order.positions), count, replace=False, shuffle=False))
            positions = np.asarray(order.positions, dtype=np.int64)[places]
            parts = (store.load(batch.view, positions, features=True).arrays[FEATURES] for store in self._stores)
            self._bank_rows, self._bank_key = (positions, tuple(map(np.ascontiguousarray, parts))), key
        assert self._bank_rows is not None
        return self._bank_rows

    def _decoded(self, store: Store, view: int, rows: EncodedRows) -> SoftLabels:
        soft_labels = rows.soft_labels()
        if self.options.by_class:
            soft_labels = soft_labels.by_class()
        if self.options.top_k is not None:
            soft_labels = soft_labels.prefix(self.options.top_k)
        if self.options.class_means and not store.identity.encoding.COMPLETE:
            soft_labels = soft_labels.with_class_means(store.class_means(view))
        return soft_labels.to(self.device)

    def _window(self, batch: BatchRows) -> Rows:
        """The rows of a batch's window; `BatchRows.rows` are places among them."""
        key = self._key_of(batch.epoch, batch.window)
        if self._stores and key != self._key:
            ahead, self._ahead = self._ahead, None
            self._current, self._key = (), None  # two windows fit in memory, three may not
            if ahead is not None and ahead[0] == key:
                self._current = ahead[1].result()
            else:
                self._current = self._read(batch.epoch, batch.window)
            self._key = key
            self._read_ahead(batch)
        return self._current

    def _key_of(self, epoch: int, number: int) -> tuple[int, int]:
        """The same key for windows of the same rows: one window of one process has all of them, in any epoch."""
        order = self._batch_order
        all_rows = order.window_count == 1 == order.world_size
        return (-1, order.view_of(epoch)) if all_rows else (epoch, number)

    def _read_ahead(self, batch: BatchRows) -> None:
        """Read the next window of other rows, unless the last epoch ends with the batch's."""
        following = self._following(batch)
        if following is not None and (key := self._key_of(*following)) != self._key:
            self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-labels")
            self._ahead = key, self._thread.submit(self._read, *following)

    def _following(self, batch: BatchRows) -> tuple[int, int] | None:
        """Epoch and number of the first window after the batch's that has batches."""
        for epoch in range(batch.epoch, min(batch.epoch + 2, self._epochs)):
            for number, count in enumerate(self._batch_order.window_steps(epoch)):
                if count and (epoch, number) > (batch.epoch, batch.window):
                    return epoch, number
        return None

    def _read(self, epoch: int, number: int) -> Rows:
        window = self._batch_order.own_window(epoch, number)
        parts = []
        for number, store in enumerate(self._stores):
            features, taps = self.options.outputs_of(number)
            positions = rows_of_texts(window.positions, self._sequence)
            parts.append(store.load(window.view, positions, features=features, taps=taps))
        return tuple(parts)


def _tap(rows: EncodedRows, name: str) -> Array:
    """The tap [B, ...] of a name, or the features."""
    return rows.arrays[FEATURES] if name == FEATURES else rows.tap(name)
