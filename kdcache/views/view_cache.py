"""A cache of views: their pixels as they were drawn, u8, for students and epochs that come later.

A file holds one view of `rows_a_file` neighbouring samples, at its full size from the start. A row counts once its mark
stands, which is written after its pixels: 64 bits of xxh3, seeded by the folder's key, over view, sample, contents and
the digest of dtype, shape and pixels. It is compared with that of the pixels that a reader has copied, so a row that is
half written, or of another key, is no row.
"""

import fcntl
import math
import mmap
import os
import resource
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from kdcache.views.cache_folder import CacheFolder, Fingerprints

Array = npt.NDArray[Any]
Put = Callable[[int, int, int, Array], int]
"""Copies a view: takes its number among those asked for, the row, the sample and the pixels [ch, H, W], and returns 64
bits of xxh3 over dtype, shape and pixels of the copy."""

KEY = struct.Struct("<QQQQ")  # of a row: view, sample, content fingerprints, digest of its pixels
HEAD = struct.Struct("<8sIIII")  # magic, rows, channels, height, width
MAGIC = b"kdviews1"
ROWS = 1024  # of a file
FILES = 256  # of a view, at most: of larger data sets they have more rows
OPEN = 300  # files that a cache has mapped, each with a descriptor; fewer where the process may have few of these
SHARE = 4  # of a process's descriptors: one part in so many
ALIGNED = 64  # bytes at whose multiples pixels begin


class ViewCache:
    """Rows of views of a data set of `samples` samples, by the key of its folder. `serves` False: rows are kept, and
    none is served."""

    def __init__(self, folder: CacheFolder, samples: int, *, serves: bool = True) -> None:
        self.folder, self.samples, self.serves = folder, samples, serves
        self._seed = int(folder.name[:16], 16)
        self._rows = rows_a_file(samples)
        self._files: OrderedDict[tuple[int, int], _File] = OrderedDict()
        self._absent: set[tuple[int, int]] = set()  # files that could not be made
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = OPEN if descriptors == resource.RLIM_INFINITY else max(1, min(OPEN, descriptors // SHARE))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def keeping(self) -> "ViewCache":
        """The same cache, of which nothing is served."""
        return ViewCache(self.folder, self.samples, serves=False)

    def serve(self, views: Iterable[int], indices: Sequence[int], put: Put) -> tuple[list[int], Array]:
        """Hand the views of samples to `put`, and return the rows [M] of those that are not all here, and the content
        fingerprints [B, 2] u32 of the others."""
        missing, fingerprints = [], [0] * len(indices)
        numbered_views = list(enumerate(views))
        for row, index in enumerate(indices):
            block, place = divmod(index, self._rows)
            for offset, view in numbered_views:
                file = self._files.get((view, block)) or self._file(view, block)
                if file is None or not (mark := file.marks[place]):
                    missing.append(row)
                    break
                digest = put(offset, row, index, file.pixels[place])
                contents = fingerprints[row] = file.contents[place]
                if mark != xxh3_64_intdigest(KEY.pack(view, index, contents, digest), self._seed):
                    missing.append(row)
                    break
        return missing, np.array(fingerprints, np.uint64).view(np.uint32).reshape(-1, 2)

    def keep(self, view: int, index: int, pixels: Array, digest: int, fingerprints: Fingerprints) -> bool:
        """Keep the pixels [ch, H, W] u8 of a row, whose digest is that of `put`. False where there is no room, and for
        other views."""
        block, place = divmod(index, self._rows)
        if pixels.dtype != np.uint8:
            return False
        file = self._file(view, block)
        if file is not None and file.pixels.shape[1:] != pixels.shape:
            self._files.pop((view, block), None)
            self.folder.remove(_name(view, block))
            file = None
        file = file or self._made(view, block, pixels.shape)
        if file is None or file.pixels.shape[1:] != pixels.shape or file.marks.readonly:
            return False
        contents = fingerprints[0] | fingerprints[1] << 32
        file.marks[place] = 0  # of a row that is written again
        file.pixels[place] = pixels
        file.contents[place] = contents
        file.marks[place] = xxh3_64_intdigest(KEY.pack(view, index, contents, digest), self._seed)
        return True

    def rows_kept(self, view: int) -> int:
        """The number of rows of a view that have a mark."""
        blocks = range(-(-self.samples // self._rows))
        files = [file for block in blocks if (file := self._file(view, block)) is not None]
        return sum(int(np.count_nonzero(np.asarray(file.marks))) for file in files)

    def file_bytes(self, row_bytes: int) -> int:
        """The bytes of a whole file of views of `row_bytes` bytes."""
        return file_size(self._rows_of(0), row_bytes)

    def held(self, views: Sequence[int]) -> tuple[int, int]:
        """The numbers of files of some views that there are, and that there may be."""
        blocks = range(-(-self.samples // self._rows))
        return sum(self._file(view, block) is not None for view in views for block in blocks), len(views) * len(blocks)

    def _file(self, view: int, block: int) -> "_File | None":
        if (file := self._files.get((view, block))) is not None or (view, block) in self._absent:
            return file
        descriptor = self.folder.open(_name(view, block))
        if descriptor is None:
            return None
        try:
            file = _File.mapped(descriptor, self._rows_of(block))
        except OSError:  # no memory or no descriptor for the map
            return None
        if file is None:
            self.folder.remove(_name(view, block))
            return None
        self._files[view, block] = file
        if len(self._files) > self._most:
            self._files.popitem(last=False)
        return file

    def _made(self, view: int, block: int, shape: tuple[int, ...]) -> "_File | None":
        rows = self._rows_of(block)
        size = file_size(rows, int(np.prod(shape)))

        def write(descriptor: int) -> None:
            _allocate(descriptor, size)
            os.pwrite(descriptor, HEAD.pack(MAGIC, rows, *shape), 0)

        if self.folder.make(_name(view, block), size, write):
            return self._file(view, block)
        self._absent.add((view, block))
        return None

    def _rows_of(self, block: int) -> int:
        return min(self._rows, self.samples - block * self._rows)


class _File:
    """A mapped file: `pixels` [R, ch, H, W] u8 of its rows, their `marks` [R] u64, and `contents` [R] u64, the two
    fingerprints of each, the first in the low half."""

    def __init__(self, memory: mmap.mmap, shape: tuple[int, ...]) -> None:
        rows = shape[0]
        records = memoryview(memory)[ALIGNED : ALIGNED + 16 * rows].cast("Q")
        self.marks, self.contents = records[:rows], records[rows:]
        self.pixels = np.frombuffer(memory, np.uint8, math.prod(shape), _pixels_start(rows)).reshape(shape)

    @classmethod
    def mapped(cls, descriptor: int, rows: int) -> "_File | None":
        """The file of an open descriptor, which is closed; None where it is no file of so many rows."""
        try:
            size = os.fstat(descriptor).st_size
            head = os.pread(descriptor, HEAD.size, 0)
            if len(head) < HEAD.size:
                return None
            magic, *shape = HEAD.unpack(head)
            if magic != MAGIC or shape[0] != rows or file_size(rows, math.prod(shape[1:])) != size:
                return None
            is_read_only = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            access = mmap.ACCESS_READ if is_read_only else mmap.ACCESS_WRITE
            return cls(mmap.mmap(descriptor, size, access=access), tuple(shape))
        finally:
            os.close(descriptor)


def rows_a_file(samples: int) -> int:
    """Rows of a file: 1,024, doubled until a view has 256 files at most."""
    rows = ROWS
    while rows * FILES < samples:
        rows *= 2
    return rows


def cached_bytes(samples: int, row_bytes: int) -> int:
    """The bytes that one view of all samples takes, of `row_bytes` each."""
    rows = rows_a_file(samples)
    return sum(file_size(min(rows, samples - start), row_bytes) for start in range(0, samples, rows))


def file_size(rows: int, row_bytes: int) -> int:
    """The bytes of a file of so many rows."""
    return _pixels_start(rows) + rows * row_bytes


def _pixels_start(rows: int) -> int:
    return -(-(ALIGNED + 16 * rows) // ALIGNED) * ALIGNED


def _name(view: int, block: int) -> str:
    return f"{view:05d}-{block:05d}"


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its size, and blocks on the disk: later writes through a map cannot fail for want of room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, 1 << 20):  # macOS
        os.pwrite(descriptor, bytes(min(1 << 20, size - start)), start)
