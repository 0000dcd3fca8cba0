"""Soft labels of the window in use, while a thread reads the next one.

Memory: two windows, of a size that the batch order sets, and the buffers of a reading.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from kdcache.store.rows import EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder, BatchRows

DEFAULT_MEMORY = 4_000_000_000  # bytes of soft labels in memory, the view in use and the next one

Rows = tuple[EncodedRows, ...]


class LabelWindows:
    """The rows of every store in the window that a batch belongs to. `thread` has one worker, which reads ahead."""

    def __init__(
        self,
        stores: Sequence[Store],
        batch_order: BatchOrder,
        *,
        epochs: int,
        features: bool,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._stores, self._batch_order, self._epochs = tuple(stores), batch_order, epochs
        self._features, self._thread = features, thread
        self._current: Rows = ()
        self._key: tuple[int, int] | None = None
        self._next: dict[tuple[int, int], Future[Rows]] = {}

    def at(self, batch: BatchRows) -> Rows:
        """The rows of a batch's window; `BatchRows.rows` are places among them."""
        key = (batch.epoch, batch.window)
        if self._stores and key != self._key:
            future = self._next.pop(key, None)
            self._current = ()  # let go of the old window before the next is asked for: two fit, three may not
            self._current = future.result() if future is not None else self._read(*key)
            self._key = key
            self._prefetch(batch)
        return self._current

    def _prefetch(self, batch: BatchRows) -> None:
        """Read the window after the batch's, unless the run ends with it."""
        order = self._batch_order
        epoch, number = batch.epoch, batch.window + 1
        if number == order.window_count:
            epoch, number = epoch + 1, 0
        if epoch >= self._epochs:
            return
        one_window = order.window_count == 1 == order.world_size  # else each epoch gives a process other rows
        if one_window and order.view_of(epoch) == batch.view:
            rows = self._current
            self._next[epoch, number] = self._thread.submit(lambda: rows)
        else:
            self._next[epoch, number] = self._thread.submit(self._read, epoch, number)

    def _read(self, epoch: int, number: int) -> Rows:
        window = self._batch_order.own_window(epoch, number)
        return tuple(store.load(window.view, window.positions, features=self._features) for store in self._stores)
