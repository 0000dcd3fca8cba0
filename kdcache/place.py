"""Where a store lies: a folder of this machine, or one that a web server shows. The one seam beneath all readers."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from kdcache.bucket import Bucket
from kdcache.errors import InvalidInputError, StoreNotFoundError
from kdcache.files import Folder
from kdcache.limits import METADATA_LIMIT
from kdcache.origin import shown
from kdcache.web import WebFolder

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")  # chained ones too, to refuse them
SCHEMES: "dict[str, Callable[[str], Place]]" = {
    "http": WebFolder, "https": WebFolder, "s3": Bucket, "gs": Bucket, "az": Bucket
}  # fmt: skip


class Parts(Protocol):
    """A file of `size` bytes that is read in parts."""

    @property
    def size(self) -> int: ...

    def part(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class AwaitedFile:
    """A shard of `chunks` chunks of which one row is about to be read: a chunk of up to `longest` bytes."""

    key: str
    size: int
    sha256: str
    row: int
    chunks: int
    longest: int


@dataclass(frozen=True)
class AwaitedBlock:
    """A block that is about to be read: where its commit lies, the bytes that were sealed, and its files."""

    commit: str
    record: bytes
    files: tuple[AwaitedFile, ...]


class Place(Protocol):
    """What a store asks of the place where it lies; the contracts are `files.Folder`'s. Keys have forward slashes."""

    @property
    def root(self) -> Path | str: ...  # for messages
    @property
    def lists(self) -> bool: ...  # whether keys, folders and has_folder answer, rather than refuse
    @property
    def far(self) -> bool: ...  # whether each read is a request over a network
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


class FarPlace(Place, Protocol):
    """A place over a network, which also reads a span of a file whose size is known, in one request."""

    def span(self, key: str, first: int, last: int, size: int) -> bytes: ...


@runtime_checkable
class Expectant(Protocol):
    """A place that wants to know what will be read, to fetch it at once."""

    def expect(self, blocks: Sequence[AwaitedBlock]) -> None: ...


def is_url(place: str) -> bool:
    """Whether this names a place by a scheme, known or not, and so no path of this machine."""
    return URL.match(place) is not None


def open_place(place: str | os.PathLike[str]) -> Place:
    """A place by its path or URL; web servers are read only. Raises InvalidInputError for any other scheme."""
    name = os.fspath(place)
    if not is_url(name):
        return Folder(name)
    scheme = name.partition("://")[0].lower()
    if "://" in name.partition("://")[2] or scheme not in SCHEMES:
        raise InvalidInputError(
            f"kdcache reads no {shown(scheme)}: addresses; it reads {', '.join(f'{each}://' for each in SCHEMES)} "
            "addresses, one at a time, and plain paths"
        )
    return SCHEMES[scheme](name)


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """A folder of this machine, to write to or to list. Raises InvalidInputError for a URL."""
    name = os.fspath(place)
    if not is_url(name):
        return Folder(name)
    root = open_place(name).root  # refuses schemes and passwords first
    raise InvalidInputError(f"{root} is read only here; work on a folder, and publish a copy: kdcache push STORE URL")
