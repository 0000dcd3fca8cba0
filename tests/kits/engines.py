"""Functions that tests deal to the workers of an engine, and an engine whose worker has nothing open."""

import gc
import pickle
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.engine import LocalEngine
from kdcache.errors import DamagedError
from kdcache.store.store import Store
from kdcache.whole_store import store_address


def late(item: int) -> int:
    """Even items end after odd ones."""
    time.sleep(0.0 if item % 2 else 0.05)
    return item * item


def refused(item: int) -> int:
    if item == 3:
        raise DamagedError("item 3 is damaged; restore it")
    return item


def broken(item: int) -> int:
    raise ZeroDivisionError(f"item {item}")


def noted(folder: str, item: int) -> int:
    """Leave a file that says that this item was done."""
    time.sleep(0.02)
    (Path(folder) / str(item)).touch()
    return item


def stores_alive() -> int:
    """Stores that this process holds, by whomever."""
    gc.collect()
    return sum(isinstance(item, Store) for item in gc.get_objects())


class Afresh(LocalEngine):
    """Everything is pickled on the way, and nothing is open where an item is done: a worker that has just begun."""

    items_per_task = 3

    def each(self, function: Any, items: Iterable[Any], **how: Any) -> Iterator[tuple[Any, Any]]:
        for item in items:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(store_address, "_open_stores", {})
                sent, given = pickle.loads(pickle.dumps((function, item)))
                yield item, pickle.loads(pickle.dumps(sent(given)))
