"""Soft labels of the window in use, with the next one read on a thread meanwhile.

Memory: two windows, whose size the deal was given, and what `reading` takes while it reads.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from kdcache.store.rows import EncodedRows
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchRows, Deal

DEFAULT_MEMORY = 4_000_000_000  # bytes of soft labels in memory, the view in use and the next one

Rows = tuple[EncodedRows, ...]


class LabelWindows:
    """Each store's rows of the window that a batch belongs to. `thread` is of one worker and reads ahead."""

    def __init__(
        self, stores: Sequence[Store], deal: Deal, *, epochs: int, features: bool, thread: ThreadPoolExecutor
    ) -> None:
        self._stores, self._deal, self._epochs, self._features = tuple(stores), deal, epochs, features
        self._thread = thread
        self._current: Rows = ()
        self._key: tuple[int, int] | None = None
        self._next: dict[tuple[int, int], Future[Rows]] = {}

    def at(self, row: BatchRows) -> Rows:
        """The rows of a batch's window; `BatchRows.rows` are places among them."""
        key = (row.epoch, row.window)
        if self._stores and key != self._key:
            waiting = self._next.pop(key, None)
            self._current = ()  # let go of the old window before the next is asked for: two fit, three may not
            self._current = waiting.result() if waiting is not None else self._read(*key)
            self._key = key
            self._prefetch(row)
        return self._current

    def _prefetch(self, row: BatchRows) -> None:
        same = self._deal.window_count == 1 == self._deal.world_size  # else each epoch gives a process other rows
        epoch, number = (row.epoch + 1, 0) if row.window + 1 == self._deal.window_count else (row.epoch, row.window + 1)
        if epoch >= self._epochs:
            return
        if same and self._deal.view_of(epoch) == row.view:
            rows = self._current
            self._next[epoch, number] = self._thread.submit(lambda: rows)
        else:
            self._next[epoch, number] = self._thread.submit(self._read, epoch, number)

    def _read(self, epoch: int, number: int) -> Rows:
        window = self._deal.own_window(epoch, number)
        return tuple(store.load(window.view, window.positions, features=self._features) for store in self._stores)
