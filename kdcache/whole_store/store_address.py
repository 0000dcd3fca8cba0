"""A store as the workers of an engine find it: an address, and what is to be seen there; opened once a process."""

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

KEPT = 4  # stores that a process holds open: a comparison needs two


@dataclass(frozen=True)
class Source:
    """A store: what the seal `content_id` lists, or without one what lies there. `use` tells one computation from the
    next, which finds the store as it is by then."""

    url: str
    content_id: str | None
    use: str

    def store(self) -> Store:
        """The store, opened once a process for each use."""
        with _lock:
            if self not in _opened:
                while len(_opened) >= KEPT:
                    del _opened[next(iter(_opened))]
                place = open_place(self.url)
                _opened[self] = Store.listed(place) if self.content_id is None else Store.at(place, self.content_id)
            return _opened[self]

    def segment(self, name: str) -> Segment:
        """A segment by its name. Raises MissingBlockError where this process does not see it."""
        store = self.store()
        for segment in store.segments:
            if segment.layout.name == name:
                return segment
        advice = "where a shared folder is slow to show what others wrote, run the same command again"
        raise MissingBlockError(f"{store.folder.root} shows no {name} here; {advice}")


_opened: dict[Source, Store] = {}
_lock = threading.Lock()


@contextmanager
def shared(store: Store) -> Iterator[Source]:
    """A store that is open here, for workers to open too, while one computation lasts."""
    source = Source(os.fspath(store.folder.root), store.content_id, uuid.uuid4().hex)
    with _lock:
        _opened[source] = store
    try:
        yield source
    finally:
        with _lock:
            _opened.pop(source, None)


def absolute(url: str) -> str:
    """An address that names the same store wherever a worker stands; a pin stays."""
    path, pin = split_pin(url)
    return url if is_url(path) else os.path.abspath(path) + (f"@{pin}" if pin else "")
