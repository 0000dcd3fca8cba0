"""A place is where a store lies: a folder, a bucket, a web server, the hub, or a zip file in any of them.

The protocol `Place` is the one seam between a store and its bytes; `opening.open_place` finds the place of an address.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import ClosedError, StoreNotFoundError
from kdcache.places.parts import Parts

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")  # chained ones too, to refuse them


class Place(Protocol):
    """A place holds the files of a store by key, as `folder.Folder` describes. Keys have forward slashes."""

    @property
    def root(self) -> Path | str: ...  # for messages
    @property
    def lists(self) -> bool: ...  # true where keys, folders and has_folder answer, and do not refuse
    @property
    def far(self) -> bool: ...  # true where each read is a request over a network
    @property
    def mend(self) -> str: ...  # advice for a damaged file

    def path(self, key: str) -> Path | str: ...  # for messages
    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None: ...
    def require(self, key: str, advice: str, *, limit: int = METADATA_LIMIT) -> bytes: ...
    def opened(self, key: str) -> AbstractContextManager[Parts]: ...
    def digest(self, key: str) -> str | None: ...
    def size(self, key: str) -> int | None: ...
    def nothing(self, key: str) -> StoreNotFoundError: ...

    def keys(self, prefix: str) -> Iterator[str]: ...
    def folders(self, prefix: str) -> list[str]: ...
    def has_folder(self, prefix: str) -> bool: ...

    def put_new(self, key: str, data: bytes) -> bool: ...
    def put_same(self, key: str, data: bytes) -> None: ...
    def replace(self, key: str, data: bytes) -> None: ...
    def delete(self, key: str) -> None: ...


class FarPlace(Place, Protocol):
    """A place over a network, which also reads a span of a file whose size is known, in one request."""

    def span(self, key: str, first: int, last: int, size: int) -> bytes: ...


def get_optional(place: Place, key: str, *, limit: int) -> bytes | None:
    """The bytes under a key that a whole store may lack, or None where there are none.

    For readers, never for targets: a far place that refuses counts as holding nothing, since a bucket that may be read
    and not listed answers 403 for a missing key.
    """
    try:
        return place.get(key, limit=limit)
    except ClosedError:
        if not place.far:
            raise
        return None


def is_url(place: str) -> bool:
    """True where an address begins with a scheme, known or not, and so is no path of this machine."""
    return URL.match(place) is not None
