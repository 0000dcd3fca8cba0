"""Reading: blocks of one view become packed rows. Files are opened once, lengths checked, chunks decoded on threads.

Memory holds the rows that were asked for and, for each thread, one chunk three times: as it lies on disk, decoded, and
turned. There are 8 threads at most, and no more than decoded chunks fit into 64 MiB. A row is one packed record, so
that a batch is one gather, decoded a batch at a time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import WIDTH
from kdcache.labels.encoding import Encoding, LabelSpace
from kdcache.labels.soft_labels import SoftLabels
from kdcache.places.folder import Folder
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec
from kdcache.store.layout import SegmentLayout
from kdcache.store.shards import chunk_bytes, read_row

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

THREADS = 8  # also how many requests a web server gets at once
DECODED_BYTES = 2**26  # of chunks being decoded at the same time


@dataclass(frozen=True)
class Part:
    """The rows that one block gives: `rows` within the block (None: all, in order), and the `slot` that they fill."""

    block: int
    rows: IntArray | None
    slot: slice


def parts_of(positions: IntArray, layout: SegmentLayout, *, distinct: bool) -> list[Part]:
    """The blocks that hold some ascending positions, each with its rows among them. `distinct`: no position twice."""
    if not len(positions):
        return []
    first, last = int(positions[0]) // layout.block, int(positions[-1]) // layout.block
    dense = last - first < len(positions)
    blocks = np.arange(first, last + 1) if dense else np.unique(positions // layout.block)
    starts = np.searchsorted(positions, blocks * layout.block).tolist()
    parts = []
    for block, start, stop in zip(blocks.tolist(), starts, [*starts[1:], len(positions)], strict=True):
        if start < stop:
            block_start, block_stop = layout.block_rows(block)
            whole = distinct and stop - start == block_stop - block_start
            parts.append(Part(block, None if whole else positions[start:stop] - block_start, slice(start, stop)))
    return parts


def open_folders(place: Place, prefixes: Iterable[str]) -> AbstractContextManager[Place]:
    """A place whose folders under `prefixes` stay open, for reading many files in them; a far place as it is."""
    return place.held(prefixes) if isinstance(place, Folder) else nullcontext(place)


def read_records(
    place: Place,
    specs: Mapping[str, ArraySpec],
    parts: list[Part],
    row: int,
    *,
    size_of: Callable[[int, str], int],
    check: Callable[[int, str, Array], None],
) -> Array:
    """Records [B] of row `row` along the first axis of some arrays. `size_of(block, array)` is the size in bytes with
    which a file was committed; `check(block, array, values)` raises for values that there cannot be.

    Raises DamagedError where a file is missing, has another size, or does not decode, and the errors of `check`.
    """
    records = np.empty(parts[-1].slot.stop if parts else 0, record_dtype(specs))
    fields = records.view(copied_whole(records.dtype))
    targets = [
        (name, spec, cast(int, spec.block_axis) - 1, fields[name], _decoded_bytes(spec)) for name, spec in specs.items()
    ]
    threads = min(_threads(place, specs), max(len(parts), 1))
    buffers = [np.empty(max(map(_decoded_bytes, specs.values()), default=0), dtype=np.uint8) for _ in range(threads)]

    def read(part: Part, buffer: Array) -> None:
        for name, spec, axis, target, size in targets:
            file_size = size_of(part.block, name)
            values = read_row(place, spec, part.block, spec.entry_of(row), size=file_size, out=buffer[:size])
            check(part.block, name, values)
            rows = rows_first(values, axis, part.rows)
            target[part.slot] = rows.reshape(len(rows), -1).view(target.dtype)[:, 0]

    _read_all(read, parts, buffers)
    return records


def rows_first(values: Array, axis: int, rows: IntArray | None) -> Array:
    """Some rows of a chunk (None: all), contiguous, with the axis of rows first.

    They are copied a rank at a time where there are more rows than ranks: numpy's own copy walks across all ranks for
    each row.
    """
    by_row = np.moveaxis(values, axis, 0)
    if rows is not None or axis == 0 or len(by_row) <= by_row[0].size:
        return np.ascontiguousarray(by_row if rows is None else by_row[rows])
    copy = np.empty(by_row.shape, by_row.dtype)
    for rank in np.ndindex(by_row.shape[1:]):
        copy[(slice(None), *rank)] = by_row[(slice(None), *rank)]
    return copy


def _decoded_bytes(spec: ArraySpec) -> int:
    return chunk_bytes(spec.dtype, spec.chunk)


def _threads(place: Place, specs: Mapping[str, ArraySpec]) -> int:
    largest = max(map(_decoded_bytes, specs.values()), default=1)
    return max(1, min(THREADS, THREADS if place.far else _cores(), DECODED_BYTES // largest))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_all(read: Callable[[Part, Array], None], parts: list[Part], buffers: list[Array]) -> None:
    """Read every part once, on a thread for each buffer; the first error ends all. The threads live as long as this
    call, since a fork takes none along."""
    if len(buffers) == 1:
        for part in parts:
            read(part, buffers[0])
        return
    queue = deque(parts)

    def work(buffer: Array) -> None:
        try:
            while (part := _next_part(queue)) is not None:
                read(part, buffer)
        finally:
            queue.clear()  # parts are left only after an error

    with ThreadPoolExecutor(len(buffers), thread_name_prefix="kdcache-read") as pool:
        try:
            for future in [pool.submit(work, buffer) for buffer in buffers]:
                future.result()
        finally:
            queue.clear()  # after an interrupt too, only reads that have begun are waited for


def _next_part(queue: "deque[Part]") -> Part | None:
    try:
        return queue.popleft()
    except IndexError:
        return None


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view as the store holds them, positions first: packed `records` [B], and `loose` arrays."""

    encoding: Encoding
    space: LabelSpace
    positions: IntArray
    loose: dict[str, Array] = field(default_factory=dict)
    records: Array | None = None

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """All arrays by name; those of the records share their memory."""
        if self.records is None:
            return self.loose
        return {name: self.records[name] for name in self.records.dtype.names or ()} | self.loose

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.loose.values()) + (0 if self.records is None else self.records.nbytes)

    def take(self, rows: IntArray, *, positions: IntArray | None = None) -> "EncodedRows":
        """Rows `rows` of these, counted from 0. A caller that knows their `positions` saves looking them up."""
        return replace(
            self,
            positions=self.positions.take(rows) if positions is None else positions,
            loose={name: array.take(rows, axis=0) for name, array in self.loose.items()},
            records=None if self.records is None else self.records.take(rows),
        )

    def tap(self, name: str) -> Array:
        """The output [B, ...] f16 of a layer, which the rows were loaded with."""
        values: Array = self.arrays[self.encoding.tap_array(name)]
        return values

    def soft_labels(self) -> SoftLabels:
        """The rows decoded to f32; classes keep their dtype."""
        return self.encoding.decode(self.arrays, self.space)


def record_dtype(specs: Mapping[str, ArraySpec]) -> np.dtype[Any]:
    """The record of one row of some arrays: widest numbers first, so that each is aligned. Its size is a multiple of
    the widest number's."""
    names = sorted(specs, key=lambda name: -WIDTH[specs[name].dtype])
    formats = [(specs[name].dtype, _row_shape(specs[name])) for name in names]
    sizes = [np.dtype(dtype).itemsize for dtype in formats]
    offsets = [sum(sizes[:count]) for count in range(len(sizes))]
    widest = max((WIDTH[spec.dtype] for spec in specs.values()), default=1)
    return _packed_dtype(names, formats, offsets, -(-sum(sizes) // widest) * widest)


def copied_whole(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same record with each field as plain bytes, which numpy copies a field at a time, not a number at a time."""
    fields: Mapping[str, Any] = dtype.fields or {}
    formats = [f"V{field[0].itemsize}" for field in fields.values()]
    return _packed_dtype(list(fields), formats, [field[1] for field in fields.values()], dtype.itemsize)


def _packed_dtype(names: list[str], formats: list[Any], offsets: list[int], itemsize: int) -> np.dtype[Any]:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _row_shape(spec: ArraySpec) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(spec.shape) if axis not in (0, spec.block_axis))
