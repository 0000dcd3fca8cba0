"""Blocks of one view into packed rows: each file opened once, each length checked, chunks decoded on a few threads.

Memory is the rows that were asked for, and for each thread a chunk as it lies on disk, decoded, and turned. There are
8 threads at most, and no more than decoded chunks fit into 64 MiB.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kdcache.errors import DamagedError
from kdcache.places.folder import Folder
from kdcache.places.place import Place
from kdcache.store.chunks import chunk_bytes
from kdcache.store.layout import ArraySpec, SegmentLayout
from kdcache.store.rows import copied_whole, record_dtype
from kdcache.store.shards import read_row

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

THREADS = 8  # also how many requests a web server gets at once
DECODED_BYTES = 2**26  # of chunks being decoded at the same time


@dataclass(frozen=True)
class Part:
    """What one block gives: `rows` of it (None: all, in order), and where they go."""

    block: int
    rows: IntArray | None
    place: slice


def parts_of(ascending: IntArray, layout: SegmentLayout, *, distinct: bool) -> list[Part]:
    """The blocks that hold some positions, with the rows that are wanted of each; `distinct`: no position twice."""
    if not len(ascending):
        return []
    first, last = int(ascending[0]) // layout.block, int(ascending[-1]) // layout.block
    dense = last - first < len(ascending)
    blocks = np.arange(first, last + 1) if dense else np.unique(ascending // layout.block)
    starts = np.searchsorted(ascending, blocks * layout.block).tolist()
    parts = []
    for block, start, stop in zip(blocks.tolist(), starts, [*starts[1:], len(ascending)], strict=True):
        if start < stop:
            begin, end = layout.block_rows(block)
            whole = distinct and stop - start == end - begin
            parts.append(Part(block, None if whole else ascending[start:stop] - begin, slice(start, stop)))
    return parts


def nearby(place: Place, prefixes: Iterable[str]) -> AbstractContextManager[Place]:
    """A place for reading many files under some folders of it."""
    return place.held(prefixes) if isinstance(place, Folder) else nullcontext(place)


def read_records(
    place: Place,
    specs: Mapping[str, ArraySpec],
    parts: list[Part],
    row: int,
    *,
    size_of: Callable[[int, str], int],
    classes: int,
) -> Array:
    """Records [B] of row `row` along the first axis of some arrays. `size_of(block, array)` is how long a file
    was committed.

    Raises DamagedError where a file is missing, has another size, does not decode, or holds a class id that there is
    not among `classes`.
    """
    records = np.empty(parts[-1].place.stop if parts else 0, record_dtype(specs))
    fields = records.view(copied_whole(records.dtype))
    targets = [
        (name, spec, cast(int, spec.block_axis) - 1, fields[name], _decoded_bytes(spec)) for name, spec in specs.items()
    ]
    threads = min(_threads(place, specs), max(len(parts), 1))
    room = [np.empty(max(map(_decoded_bytes, specs.values()), default=0), dtype=np.uint8) for _ in range(threads)]

    def read(part: Part, room: Array) -> None:
        for name, spec, axis, target, decoded in targets:
            size = size_of(part.block, name)
            values = read_row(place, spec, part.block, row, size=size, out=room[:decoded])
            if name == "classes" and (found := int(values.max(initial=0))) >= classes:
                said = f"{place.path(spec.key(part.block))} holds class id {found}, allowed are 0 to {classes - 1}"
                raise DamagedError(f"{said}; fetch the store again")
            chosen = rows_first(values, axis, part.rows)
            target[part.place] = chosen.reshape(len(chosen), -1).view(target.dtype)[:, 0]

    _each(read, parts, room)
    return records


def rows_first(values: Array, axis: int, rows: IntArray | None) -> Array:
    """Some rows of a chunk (None: all), contiguous, with the axis of rows first.

    Turned a rank at a time where there are more rows than ranks: numpy's own way walks across the ranks for each row.
    """
    by_row = np.moveaxis(values, axis, 0)
    if rows is not None or axis == 0 or len(by_row) <= by_row[0].size:
        return np.ascontiguousarray(by_row if rows is None else by_row[rows])
    turned = np.empty(by_row.shape, by_row.dtype)
    for place in np.ndindex(by_row.shape[1:]):
        turned[(slice(None), *place)] = by_row[(slice(None), *place)]
    return turned


def _decoded_bytes(spec: ArraySpec) -> int:
    return chunk_bytes(spec.dtype, spec.chunk)


def _threads(place: Place, specs: Mapping[str, ArraySpec]) -> int:
    largest = max(map(_decoded_bytes, specs.values()), default=1)
    return max(1, min(THREADS, THREADS if place.far else _cores(), DECODED_BYTES // largest))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(read: Callable[[Part, Array], None], parts: list[Part], room: list[Array]) -> None:
    """Every part once, on a thread for each room; the first error ends all. The threads are this call's own, since a
    fork takes none along."""
    if len(room) == 1:
        for part in parts:
            read(part, room[0])
        return
    left = deque(parts)

    def work(room: Array) -> None:
        try:
            while (part := _next(left)) is not None:
                read(part, room)
        finally:
            left.clear()  # there is more left only after an error

    with ThreadPoolExecutor(len(room), thread_name_prefix="kdcache-read") as pool:
        try:
            for done in [pool.submit(work, each) for each in room]:
                done.result()
        finally:
            left.clear()  # an interrupt too waits for no more than what has begun


def _next(left: "deque[Part]") -> Part | None:
    try:
        return left.popleft()
    except IndexError:
        return None
