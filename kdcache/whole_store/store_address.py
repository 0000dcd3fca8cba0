"""A StoreAddress names a store for the workers of an engine. A process opens each address once."""

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdcache.errors import MissingBlockError
from kdcache.places.opening import open_place
from kdcache.places.place import is_url
from kdcache.store.seals import split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store

OPEN_STORES = 4  # that a process has at most: a comparison needs two


@dataclass(frozen=True)
class StoreAddress:
    """A store's address: it stands for the store as the seal `content_id` lists it, or unsealed as it lies there.

    `use` is unique to one computation: the next computation opens the store again and sees it as it is by then.
    """

    url: str
    content_id: str | None
    use: str

    def store(self) -> Store:
        """The store, opened once a process for each use."""
        with _lock:
            if self not in _open_stores:
                while len(_open_stores) >= OPEN_STORES:
                    del _open_stores[next(iter(_open_stores))]
                place = open_place(self.url)
                store = Store.listed(place) if self.content_id is None else Store.at(place, self.content_id)
                _open_stores[self] = store
            return _open_stores[self]

    def segment(self, name: str) -> Segment:
        """A segment by its name. Raises MissingBlockError where this process does not see it."""
        store = self.store()
        for segment in store.segments:
            if segment.layout.name == name:
                return segment
        advice = "where a shared folder is slow to show what others wrote, run the same command again"
        raise MissingBlockError(f"{store.folder.root} shows no {name} here; {advice}")


_open_stores: dict[StoreAddress, Store] = {}
_lock = threading.Lock()


@contextmanager
def shared_address(store: Store) -> Iterator[StoreAddress]:
    """The address of a store that is open here, while one computation lasts: workers open it by this address."""
    address = StoreAddress(os.fspath(store.folder.root), store.content_id, uuid.uuid4().hex)
    with _lock:
        _open_stores[address] = store
    try:
        yield address
    finally:
        with _lock:
            _open_stores.pop(address, None)


def absolute(url: str) -> str:
    """An address that names the same store wherever a worker runs; a pin stays."""
    path, pin = split_pin(url)
    return url if is_url(path) else os.path.abspath(path) + (f"@{pin}" if pin else "")
