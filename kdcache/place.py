"""Where a store lies: a folder of this machine, or one that a web server shows. The one seam beneath all readers."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from kdcache.errors import InvalidInputError, StoreNotFoundError
from kdcache.files import Folder
from kdcache.limits import METADATA_LIMIT
from kdcache.web import WebFolder

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Parts(Protocol):
    """A file of `size` bytes that is read in parts."""

    @property
    def size(self) -> int: ...

    def part(self, offset: int, length: int) -> bytes: ...


class Place(Protocol):
    """What a store asks of the place where it lies; the contracts are `files.Folder`'s. Keys have forward slashes."""

    @property
    def root(self) -> Path | str: ...  # for messages
    @property
    def lists(self) -> bool: ...  # whether keys, folders and has_folder answer, rather than refuse
    @property
    def mend(self) -> str: ...  # what to do about a damaged file

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


def is_url(place: str) -> bool:
    """Whether this names a place by a scheme, known or not, and so no path of this machine."""
    return URL.match(place) is not None


def open_place(place: str | os.PathLike[str]) -> Place:
    """A place to read from, by its path or URL. Raises InvalidInputError for schemes that kdcache does not read."""
    name = os.fspath(place)
    return WebFolder(name) if is_url(name) else Folder(name)


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """A folder of this machine, to write to or to list. Raises InvalidInputError for a URL."""
    name = os.fspath(place)
    if not is_url(name):
        return Folder(name)
    root = WebFolder(name).root  # refuses schemes and passwords first
    raise InvalidInputError(f"{root} is read only; work on a folder, and publish a copy of that")
