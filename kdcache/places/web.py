"""A web server is a read-only place for a store: the reading half of `folder.Folder` over http:// and https://.

An answer is data only where its status, its range and its length are those that were asked for.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol, TypeVar

from kdcache.base.limits import METADATA_LIMIT, MIB
from kdcache.errors import ClosedError, DamagedError, FormatError, InvalidInputError, StoreError, StoreNotFoundError
from kdcache.places.http_requests import Origin, Reply, TooLongError, shown, split_url
from kdcache.places.read_only import ReadOnly, Spans

T = TypeVar("T")
ABSENT = frozenset({404, 410})
CLOSED = frozenset({401, 403})
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
EMPTY = re.compile(r"bytes \*/0")
MEND = "publish the store again, whole, or use another copy of it"
HELD = 16 * MIB  # of a file that is read whole where no parts of it can be asked for
COPY = "or copy the store to a folder"


class Server(Protocol):
    """A server answers for the files of a folder; `root` is its name in messages."""

    @property
    def root(self) -> str: ...

    def ask(self, key: str, read: Callable[[Reply], T], *, byte_range: str = "") -> T: ...
    def size(self, key: str) -> int | None: ...
    def ranges(self, key: str) -> bool: ...  # true where parts of a file that is there can be asked for


class Plain:
    """A server that is asked for a file by its address, without credentials."""

    def __init__(self, url: str) -> None:
        parts = split_url(url)
        self._origin = Origin(parts)
        self._base = parts.path.rstrip("/")
        self.root = f"{self._origin.name}{self._base}"

    def ask(self, key: str, read: Callable[[Reply], T], *, byte_range: str = "") -> T:
        return self._origin.ask(f"{self._base}/{key}", read, byte_range=byte_range)

    def size(self, key: str) -> int | None:
        """The number of bytes of a file. The first one is asked for, which shows if the server keeps to ranges."""
        return self.ask(key, _total, byte_range="bytes=0-0")

    def ranges(self, key: str) -> bool:
        return True


class WebFolder(Spans, ReadOnly):
    """A folder on a web server as a place. Keys are relative, with forward slashes; nothing is listed or written."""

    lists = False
    far = True
    mend = MEND

    def __init__(self, url: str, server: Server | None = None) -> None:
        self._server = server or Plain(url)
        self.root = self._server.root
        self._sizes: dict[str, int] = {}

    def path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None:
        """The bytes under a key, or None where the server says that there is nothing.

        Raises FormatError for more than `limit` bytes, before more are read, and StoreError for any other answer.
        """

        def read(reply: Reply) -> bytes | None:
            if reply.status in ABSENT:
                return None
            _require_file(reply, 200)
            try:
                return reply.body(limit)
            except TooLongError as error:
                advice = f"it is no file of a store: check the address, {COPY}"
                raise FormatError(f"{reply.url} {error}, allowed are {limit}; {advice}") from error

        return self._ask(key, read)

    def size(self, key: str) -> int | None:
        """The number of bytes under a key, or None where there is nothing; asked once, and later answers must agree."""
        if key not in self._sizes:
            size = self._server.size(key)
            if size is None:
                return None
            self._sizes[key] = size
        return self._sizes[key]

    def span(self, key: str, first: int, last: int, size: int) -> bytes:
        """Bytes first to last of a file of `size` bytes. Raises StoreError for an answer that holds others."""
        if not self._server.ranges(key):
            return self.require(key, MEND, limit=max(size, HELD))[first : last + 1]

        def read(reply: Reply) -> bytes:
            if reply.status in ABSENT:
                raise self._missing(key, MEND)
            _require_range(reply, first, last, size)
            return _body(reply, last - first + 1)

        return self._ask(key, read, byte_range=f"bytes={first}-{last}")

    def digest(self, key: str) -> str | None:
        """sha256 of the bytes under a key, or None where there is nothing."""
        size = self.size(key)
        if size is None:
            return None

        def read(reply: Reply) -> str | None:
            if reply.status in ABSENT:
                return None
            _require_file(reply, 200)
            sha256, count = hashlib.sha256(), 0
            try:
                for piece in reply.pieces(size):
                    sha256.update(piece)
                    count += len(piece)
            except TooLongError as error:
                raise DamagedError(f"{reply.url} {error}, before it had {size}; {MEND}") from error
            if count != size:
                raise DamagedError(f"{reply.url} has {count} bytes, before it had {size}; {MEND}")
            return sha256.hexdigest()

        return self._ask(key, read)

    def nothing(self, key: str) -> StoreNotFoundError:
        """The error to raise where the file that makes a folder a store is missing."""
        problem = f"{self.path(key)} is not there, so {self.root} is no store"
        return StoreNotFoundError(f"{problem}; check the address: it must be that of the store's own folder")

    def has_folder(self, prefix: str) -> bool:
        self._unlistable()

    def keys(self, prefix: str) -> Iterator[str]:
        self._unlistable()

    def folders(self, prefix: str) -> list[str]:
        self._unlistable()

    def _ask(self, key: str, read: Callable[[Reply], T], *, byte_range: str = "") -> T:
        return self._server.ask(key, read, byte_range=byte_range)

    def _missing(self, key: str, advice: str) -> DamagedError:
        return DamagedError(f"{self.path(key)} is missing; {advice}")

    def _unlistable(self) -> NoReturn:
        raise StoreError(f"{self.root} cannot be listed: web servers only answer for single files; {COPY[3:]}")

    def _read_only(self) -> NoReturn:
        raise InvalidInputError(f"{self.root} is read only; write to a folder, and publish a copy of that")


def _require_file(reply: Reply, status: int) -> None:
    """Raises StoreError for an answer that is no file of a store, naming the answer and a remedy."""
    if reply.redirect:
        advice = f"if you trust it, name that address yourself, {COPY}"
        raise StoreError(f"{reply.url} answered {reply.status_line} and points to {reply.redirect}; {advice}")
    if reply.status in CLOSED:
        advice = f"kdcache sends no password: use an address that is open to you, {COPY}"
        remark = "some object stores answer this for what is missing too"
        raise ClosedError(f"{reply.url} answered {reply.status_line} ({remark}); {advice}")
    if reply.header("Content-Type").lower().startswith("text/html") and reply.status == 200:
        raise StoreError(
            f"{reply.url} answered {reply.status_line} with a web page, not a file; check the address, {COPY}"
        )
    if status == 206 and reply.status == 200:
        advice = f"use a server that has range requests (nginx, Apache, an object store), {COPY}"
        raise StoreError(
            f"{reply.url} answered {reply.status_line} to a request for some of its bytes, 206 was due; {advice}"
        )
    if reply.status != status:
        raise StoreError(f"{reply.url} answered {reply.status_line}, {status} was due; check the address, {COPY}")
    if (encoding := reply.header("Content-Encoding").lower()) not in ("", "identity"):
        advice = f"switch its compression off for stores, {COPY}"
        raise StoreError(f"{reply.url} came encoded as {shown(encoding)}, asked for was identity; {advice}")


def _require_range(reply: Reply, first: int, last: int, size: int) -> None:
    """Raises StoreError or DamagedError for an answer that is not bytes first to last of `size`."""
    _require_file(reply, 206)
    match = CONTENT_RANGE.fullmatch(reply.header("Content-Range"))
    if match is None or (int(match[1]), int(match[2])) != (first, last):
        problem = f"answered with range {shown(reply.header('Content-Range'))!r}, asked for were bytes {first}-{last}"
        raise StoreError(f"{reply.url} {problem}; use another server, {COPY}")
    if int(match[3]) != size:
        raise DamagedError(f"{reply.url} has {int(match[3])} bytes, before it had {size}; {MEND}")


def _body(reply: Reply, length: int) -> bytes:
    """Exactly `length` bytes. Raises StoreError for fewer or more."""
    try:
        data = reply.body(length)
    except TooLongError as error:
        raise StoreError(f"{reply.url} {error}, asked for were {length}; use another server, {COPY}") from error
    if len(data) != length:
        raise StoreError(f"{reply.url} sent {len(data)} bytes, asked for were {length}; use another server, {COPY}")
    return data


def _total(reply: Reply) -> int | None:
    """The number of bytes of a file, from the answer to a request for its first byte; None where there is no file."""
    if reply.status in ABSENT:
        return None
    content_range = reply.header("Content-Range")
    if (reply.status == 416 and EMPTY.fullmatch(content_range)) or (reply.status == 200 and reply.length == 0):
        return 0
    _require_file(reply, 206)
    match = CONTENT_RANGE.fullmatch(content_range)
    if match is None or (int(match[1]), int(match[2])) != (0, 0):
        problem = f"answered with range {shown(content_range)!r}, asked for were bytes 0-0 and the length"
        raise StoreError(f"{reply.url} {problem}; use another server, {COPY}")
    _body(reply, 1)
    return int(match[3])
