"""Reading a far place ahead: the files of a read are fetched at once, and whole shards are cached by their sha256.

The first view of a shard comes in parts, for a reader of one view should not wait for ten. The second view brings the
whole shard into the cache, compared with its sha256: a training reads all views in the end. A shard comes whole once
only. One that the cache has lost since comes in parts: a cache that is smaller than the store would lose it again, and
six views would cost six whole shards.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from kdcache.base.limits import METADATA_LIMIT
from kdcache.base.parallel import JOBS, Budget, Pool
from kdcache.places.cache import Cache, open_cache
from kdcache.places.checked_files import require_sha256
from kdcache.places.parts import Parts, in_memory
from kdcache.places.place import FarPlace, Place
from kdcache.store.shards import index_bytes, parse_index

A = TypeVar("A")
B = TypeVar("B")

SMALL = 2**14  # bytes up to which a file is fetched whole at once: a second request would take longer
HELD = 2**28  # most bytes of whole shards in memory at once, over all threads; a larger shard comes in parts


@dataclass(frozen=True)
class AwaitedFile:
    """A shard of `chunks` chunks. Chunk `row`, of up to `longest` bytes, is about to be read."""

    key: str
    size: int
    sha256: str
    row: int
    chunks: int
    longest: int


@dataclass(frozen=True)
class AwaitedBlock:
    """A block that is about to be read: the key of its commit, the commit's bytes as sealed, and its files."""

    commit: str
    record: bytes
    files: tuple[AwaitedFile, ...]


@runtime_checkable
class Expectant(Protocol):
    """A place that is told of the blocks of a read beforehand, and fetches them at once."""

    def expect(self, blocks: Sequence[AwaitedBlock]) -> None: ...


class ReadAhead:
    """A far place that serves the blocks that `expect` has named from memory or from the cache."""

    def __init__(self, inner: FarPlace, cache: Cache | None = None) -> None:
        self.inner = inner
        self._cache = cache
        self._pool = Pool(JOBS)
        self._lock = threading.Lock()
        self._whole: dict[str, AwaitedFile] = {}  # files that the cache serves
        self._parts: dict[str, Parts] = {}
        self._rows: dict[str, set[int]] = {}  # rows of a shard that were read in parts
        self._whole_once: set[str] = set()  # files that were fetched whole once
        self._budget = Budget(HELD)
        self._records: dict[str, bytes | None] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def expect(self, blocks: Sequence[AwaitedBlock]) -> None:
        """Fetch the files of these blocks and their commits, in parallel. Parts of an earlier call are forgotten."""
        with self._lock:
            self._parts, self._records = {}, {}
        for _ in self._pool.map(self._fetch, [file for block in blocks for file in block.files]):
            pass
        for _ in self._pool.map(self._fetch_commit, blocks):
            pass

    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None:
        with self._lock:
            if key in self._records:
                return self._records.pop(key)
        return self.inner.get(key, limit=limit)

    def size(self, key: str) -> int | None:
        file = self._whole.get(key) or self._parts.get(key)
        return file.size if file is not None else self.inner.size(key)

    @contextmanager
    def opened(self, key: str) -> Iterator[Parts]:
        with self._lock:  # parts serve one read: the next may come much later
            file, parts = self._whole.get(key), self._parts.pop(key, None)
        if file is not None and self._cache is not None:
            with self._cache.opened(file.sha256, file.size) as parts_in_cache:
                if parts_in_cache is not None:
                    yield parts_in_cache
                    return
            with self._fetch_whole(file) as data:  # evicted since, and parts would not be compared with its sha256
                yield in_memory(data)
        elif parts is not None:
            yield parts
        else:
            with self.inner.opened(key) as far_parts:
                yield far_parts

    def _fetch(self, file: AwaitedFile) -> None:
        index_size = index_bytes(file.chunks)
        if not 0 <= file.size <= file.chunks * file.longest + index_size:
            return  # no shard is that large, whatever its commit says; the reader raises for it
        cache = self._cache
        if cache is not None and file.size <= min(HELD, cache.limit) and self._through_cache(cache, file):
            self._whole[file.key] = file
            return
        self._whole.pop(file.key, None)
        parts = {}
        index_offset = max(file.size - index_size, 0)
        index = parts[index_offset, index_size] = self._span(file, index_offset, index_size)
        try:
            offset, length = parse_index(index, file.chunks, file.size)[file.row]
        except ValueError:
            return  # the reader raises for it
        if length <= file.longest:
            parts[offset, length] = self._span(file, offset, length)
        with self._lock:
            self._parts[file.key] = self._fetched(file, parts)
            self._rows.setdefault(file.key, set()).add(file.row)

    def _fetched(self, file: AwaitedFile, parts: dict[tuple[int, int], bytes]) -> Parts:
        """A file of which some parts, by offset and length, are here. Any other part is requested when it is read."""

        def fetch(offset: int, length: int) -> bytes:
            if (data := parts.get((offset, length))) is not None:
                return data
            with self.inner.opened(file.key) as far_parts:
                return far_parts.part(offset, length)

        return Parts(file.size, fetch)

    def _through_cache(self, cache: Cache, file: AwaitedFile) -> bool:
        """True where the cache serves a file, which may be fetched whole for that.

        A file is fetched whole where it is small, or where another row of it was read in parts before. That happens
        once: a file that the cache has lost since, or that a full disk could not take, is read in parts as without a
        cache.
        """
        if cache.holds(file.sha256, file.size):
            return True
        if not cache.keeps:
            return False
        small = file.size <= SMALL or file.chunks == 1
        if not small and not self._rows.get(file.key, set()) - {file.row}:
            return False
        if file.key in self._whole_once and file.chunks > 1:
            return False
        with self._fetch_whole(file) as data:
            try:
                cache.put(file.sha256, [data], str(self.inner.path(file.key)))
            except OSError:
                return False
        return True

    @contextmanager
    def _fetch_whole(self, file: AwaitedFile) -> Iterator[bytes]:
        """The bytes of a whole file, compared with its sha256. It waits until the budget has room for them."""
        self._budget.take(file.size)
        try:
            data = require_sha256(self.inner, file.key, file.size, file.sha256, says="committed was")
            self._whole_once.add(file.key)  # not before: a file that was refused is fetched whole again, and compared
            yield data
        finally:
            self._budget.give(file.size)

    def _span(self, file: AwaitedFile, offset: int, length: int) -> bytes:
        last = min(offset + length, file.size) - 1
        return b"" if last < offset else self.inner.span(file.key, offset, last, file.size)

    def _fetch_commit(self, block: AwaitedBlock) -> None:
        """Fetch a block's commit as it stands now. Where all files are compared with the sealed sha256, the sealed
        commit serves."""
        is_checked = all(file.key in self._whole for file in block.files)
        record = block.record if is_checked else self.inner.get(block.commit, limit=METADATA_LIMIT)
        with self._lock:
            self._records[block.commit] = record


def reading(place: Place) -> Place:
    """A place for reading: a far one is read ahead, through the user's cache."""
    if not place.far or isinstance(place, ReadAhead):
        return place
    cache = open_cache()
    return cast(Place, ReadAhead(cast(FarPlace, place), cache if cache.limit else None))
