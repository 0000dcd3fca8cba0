"""A StoreAddress names a store for the workers of an engine. A process opens each once, and drops it in the end."""

import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from kdcache.base.computed_once import computed_once
from kdcache.errors import MissingBlockError
from kdcache.places.opening import open_place
from kdcache.places.place import is_url
from kdcache.store.seals import split_pin
from kdcache.store.segment import Segment
from kdcache.store.store import Store

T = TypeVar("T")

OPEN_STORES = 4  # that a process has at most: a comparison needs two
ENDED = 256  # uses whose end a process remembers, for tasks that outlast their computation


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
        return _use_of(self).store

    def kept(self, name: Hashable, make: Callable[[], T]) -> T:
        """A value that a process makes when it is first asked for, and drops with the store."""
        values = _use_of(self).values
        if name not in values:
            values[name] = make()
        return cast(T, values[name])

    def segment(self, name: str) -> Segment:
        """A segment by its name. Raises MissingBlockError where this process does not see it."""
        store = self.store()
        for segment in store.segments:
            if segment.layout.name == name:
                return segment
        advice = "where a shared folder is slow to show what others wrote, run the same command again"
        raise MissingBlockError(f"{store.folder.root} shows no {name} here; {advice}")


class _Use:
    """All that a process keeps for one use of a store."""

    def __init__(self, address: StoreAddress) -> None:
        self.address = address
        self.values: dict[Hashable, Any] = {}

    @computed_once
    def store(self) -> Store:
        place, content_id = open_place(self.address.url), self.address.content_id
        return Store.listed(place) if content_id is None else Store.at(place, content_id)


_open_stores: dict[StoreAddress, _Use] = {}
_ended: deque[StoreAddress] = deque(maxlen=ENDED)
_lock = threading.Lock()  # of these two alone, never held while a store is opened


def _use_of(address: StoreAddress) -> _Use:
    with _lock:
        use = _open_stores.get(address) or _Use(address)
        if address not in _open_stores and address not in _ended:
            while len(_open_stores) >= OPEN_STORES:
                del _open_stores[next(iter(_open_stores))]
            _open_stores[address] = use
        return use


def drop(*addresses: StoreAddress) -> None:
    """End a use in this process: a task that outlasts its computation keeps nothing any more."""
    with _lock:
        for address in addresses:
            _open_stores.pop(address, None)
            _ended.append(address)


@contextmanager
def shared_address(store: Store) -> Iterator[StoreAddress]:
    """The address of a store that is open here, while one computation lasts: workers open it by this address."""
    address = StoreAddress(os.fspath(store.folder.root), store.content_id, uuid.uuid4().hex)
    use = _Use(address)
    vars(use)["store"] = store
    with _lock:
        _open_stores[address] = use
    try:
        yield address
    finally:
        drop(address)


def absolute(url: str) -> str:
    """An address that names the same store wherever a worker runs; a pin stays."""
    path, pin = split_pin(url)
    return url if is_url(path) else os.path.abspath(path) + (f"@{pin}" if pin else "")
