"""Where a store lies: a folder, a bucket, a web server, the hub, or a zip file in any of them. The one seam beneath."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from kdcache.errors import ClosedError, InvalidInputError, StoreNotFoundError
from kdcache.limits import METADATA_LIMIT
from kdcache.places.archive import UNPACK, Archive
from kdcache.places.bucket import Bucket
from kdcache.places.files import Folder
from kdcache.places.hub import open_hub
from kdcache.places.origin import shown
from kdcache.places.parts import Parts
from kdcache.places.web import WebFolder

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")  # chained ones too, to refuse them
SCHEMES: "dict[str, Callable[[str], Place]]" = {
    "http": WebFolder, "https": WebFolder, "s3": Bucket, "gs": Bucket, "az": Bucket, "hf": open_hub
}  # fmt: skip
ARCHIVE = re.compile(r"://.+/[^/]+\.zip\Z", re.IGNORECASE)


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


def get_optional(place: Place, key: str, *, limit: int) -> bytes | None:
    """The bytes under a key that a whole store may lack, or None. For readers, never for targets: a bucket that may be
    read and not listed answers 403 for what is missing, so from a far place this counts as nothing."""
    try:
        return place.get(key, limit=limit)
    except ClosedError:
        if not place.far:
            raise
        return None


def is_url(place: str) -> bool:
    """Whether this names a place by a scheme, known or not, and so no path of this machine."""
    return URL.match(place) is not None


def open_place(place: str | os.PathLike[str]) -> Place:
    """A place by its path or URL; web servers and zip files are read only. A file of this machine is read as a zip
    file, and so is what a URL names that ends in .zip. Raises InvalidInputError for any other scheme."""
    name = os.fspath(place)
    if not is_url(name):
        return Archive.of_file(name) if os.path.isfile(name) else Folder(name)
    return _archive_at(name) if ARCHIVE.search(name) else _place_at(name)


def _place_at(url: str) -> Place:
    scheme = url.partition("://")[0].lower()
    if "://" in url.partition("://")[2] or scheme not in SCHEMES:
        raise InvalidInputError(
            f"kdcache reads no {shown(scheme)}: addresses; it reads {', '.join(f'{each}://' for each in SCHEMES)} "
            "addresses, one at a time, and plain paths"
        )
    return SCHEMES[scheme](url)


def _archive_at(url: str) -> Archive:
    """A zip file beneath a place that is named by a URL; it is looked for when something is first read."""
    above, _, name = url.rpartition("/")
    place = _place_at(f"{above}/")

    def opens() -> Parts:
        if place.size(name) is None:
            raise StoreNotFoundError(f"{place.path(name)} is not there; check the address")
        with place.opened(name) as file:  # remote files hold nothing open
            return file

    return Archive(str(place.path(name)), opens, far=True)


def open_folder(place: str | os.PathLike[str]) -> Folder:
    """A folder of this machine, to write to or to list. Raises InvalidInputError for a URL or a zip file."""
    name = os.fspath(place)
    found = open_place(name)  # refuses schemes and passwords first
    if isinstance(found, Folder):
        return found
    if isinstance(found, Archive):
        raise InvalidInputError(f"{found.root} is read only; {UNPACK.format(found.root)}, and work on that")
    raise InvalidInputError(
        f"{found.root} is read only here; work on a folder, and publish a copy: kdcache push STORE URL"
    )
