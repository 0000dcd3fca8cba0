"""The reading of soft labels: those of the window in use are in memory, while a thread reads the next window.

Memory: two windows, of a size that the batch order sets, and the buffers of a reading.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from kdcache.base.devices import to_device
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.reading import EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder, BatchRows
from kdcache.training.loader_options import LabelOptions

Rows = tuple[EncodedRows, ...]


class LabelReading:
    """Soft labels of batches, from the rows of every store in the window that a batch belongs to.

    `epochs`: the number after which nothing is read ahead.
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
        self._thread: ThreadPoolExecutor | None = None
        self._current: Rows = ()
        self._key: tuple[int, int] | None = None
        self._ahead: tuple[tuple[int, int], Future[Rows]] | None = None

    def rows(self, batch: BatchRows) -> Rows:
        """A batch's rows of each store, encoded. After a jump to another epoch the window is read when it is asked
        for."""
        return tuple(window.take(batch.rows, positions=batch.positions) for window in self._window(batch))

    def soft_labels(self, view: int, rows: Rows) -> tuple[SoftLabels, ...]:
        """The soft labels of each store on the device, from encoded rows of a view."""
        return tuple(self._decoded(store, view, part) for store, part in zip(self._stores, rows, strict=True))

    def features(self, rows: Rows) -> tuple[Tensor, ...]:
        """The features [B, D] of each store on the device; empty where the options do not ask for them."""
        parts = rows if self.options.features else ()
        return tuple(to_device(torch.from_numpy(part.arrays["features"]), self.device) for part in parts)

    def close(self) -> None:
        """Let go of the windows and end the thread; the next batch begins anew."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread, self._current, self._key, self._ahead = None, (), None, None

    def _decoded(self, store: Store, view: int, rows: EncodedRows) -> SoftLabels:
        soft_labels = rows.soft_labels()
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
        return tuple(
            store.load(window.view, window.positions, features=self.options.features) for store in self._stores
        )
