"""Common rows of two stores: the positions that hold the same sample, and reading them in bounded memory.

Two stores of one data set may have other orders, encodings and block sizes. Rows meet by dataset index and view.
Shape letters: N positions of a store, R rows in common.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdcache.store.reading import EncodedRows
from kdcache.store.segment import Segment
from kdcache.store.store import Store

IntArray = npt.NDArray[np.int64]

GROUP_BYTES = 2**26  # of the rows of one store that are in memory at a time, as stored
VIEWS = 2  # whose groups are kept
READ_BYTES = 2**26  # of the whole blocks that are decoded at a time to take rows from


@dataclass(frozen=True)
class CommonRows:
    """Positions [R] of the same samples in two stores, ascending in the first, and their dataset indices."""

    a: IntArray
    b: IntArray
    index: IntArray

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: IntArray) -> "CommonRows":
        """The rows at some indices [R'] into these."""
        return CommonRows(self.a[rows], self.b[rows], self.index[rows])


class Pairing:
    """The map between the positions of two stores of one data set. Orders are read only where they differ."""

    def __init__(self, a: Store, b: Store) -> None:
        self.a, self.b = a, b
        self.aligned = a.identity.order.sha256 == b.identity.order.sha256
        self._to_b: IntArray | None = None
        self._groups: dict[tuple[int, int], tuple[CommonRows, ...]] = {}

    def groups_of(self, view: int, limit: int) -> "tuple[CommonRows, ...]":
        """The rows of a view in groups, the same in every process; those of the last views that were asked for stay."""
        key = (view, limit)
        if (view_groups := self._groups.get(key)) is None:
            view_groups = tuple(groups(self.rows_of(view, limit), self.a, self.b, view))
            for old_key in list(self._groups)[: 1 - VIEWS]:
                self._groups.pop(old_key, None)
            self._groups[key] = view_groups
        return view_groups

    def rows_of(self, view: int, limit: int) -> CommonRows:
        """Rows of a view that both stores have committed, at most `limit` of them (0: all).

        Where the first store's order is shuffled, whole blocks are taken, evenly spaced: a block's rows are then as
        good as any, and a view is read block by block. In a given order single rows are taken, evenly spaced.
        """
        positions = np.flatnonzero(_committed(self.a, view))
        common = positions[_committed(self.b, view)[self._positions_in_b(positions)]]
        subset = _subset(common, self.a, view, limit) if limit and limit < len(common) else common
        return CommonRows(subset, self._positions_in_b(subset), self.a.order[subset])

    def _positions_in_b(self, positions: IntArray) -> IntArray:
        if self.aligned:
            return positions
        if self._to_b is None:
            position_of = np.empty(self.b.rows, dtype=np.int64)
            position_of[self.b.order] = np.arange(self.b.rows)
            self._to_b = position_of[self.a.order]
        return self._to_b[positions]


def common_views(a: Store, b: Store) -> tuple[int, ...]:
    """Views that both stores have a segment of, ascending."""
    return tuple(sorted(set(a.every_view) & set(b.every_view)))


def groups(rows: CommonRows, a: Store, b: Store, view: int) -> Iterator[CommonRows]:
    """The rows in groups. A group fits the memory of one read and ends where a block of the first store ends."""
    row_size = max(_row_bytes(store.segment_of(view)) for store in (a, b))
    block = a.segment_of(view).layout.block
    step = max(GROUP_BYTES // row_size // block, 1) * block
    edges = np.searchsorted(rows.a, np.arange(step, a.rows, step))
    for group_a, group_b, index in zip(
        *(np.split(array, edges) for array in (rows.a, rows.b, rows.index)), strict=True
    ):
        if len(group_a):
            yield CommonRows(group_a, group_b, index)


def gather(store: Store, view: int, positions: IntArray) -> EncodedRows:
    """Rows of one view at `positions` [R], in that order. Some whole blocks are read at a time."""
    segment = store.segment_of(view)
    block = segment.layout.block
    order = np.argsort(positions, kind="stable")
    sorted_positions = positions[order]
    blocks_a_read = max(READ_BYTES // (_row_bytes(segment) * block), 1)
    blocks = np.unique(sorted_positions // block)
    starts = blocks[::blocks_a_read][1:] * block  # first position of every read but the first
    parts = [store.load(view, part) for part in np.split(sorted_positions, np.searchsorted(sorted_positions, starts))]
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return EncodedRows(store.identity.encoding, store.identity.space, sorted_positions, arrays).take(inverse)


def _committed(store: Store, view: int) -> npt.NDArray[np.bool_]:
    """[N] True for positions whose block is committed and that have an answer, of texts those of tokens that count."""
    segment = store.segment_of(view)
    commits = segment.commits()
    blocks = np.array([block in commits for block in range(segment.layout.blocks)])
    mask = np.repeat(blocks, segment.layout.block)[: store.rows]
    mask[segment.struck(view)] = False
    if store.identity.dataset.sequence > 1:
        mask &= store.labels >= 0
    return mask


def _subset(positions: IntArray, a: Store, view: int, limit: int) -> IntArray:
    """`limit` of the positions in store `a`, in whole blocks where its order is shuffled."""
    if a.identity.order.kind == "given":
        return positions[np.linspace(0, len(positions) - 1, limit).astype(np.int64)]
    block = a.segment_of(view).layout.block
    blocks = np.unique(positions // block)
    block_count = min(-(-limit // block), len(blocks))
    blocks = blocks[np.linspace(0, len(blocks) - 1, block_count).astype(np.int64)]
    return positions[np.isin(positions // block, blocks)][:limit]


def _row_bytes(segment: Segment) -> int:
    """Bytes that one row of one view takes, as stored and not compressed."""
    outputs = segment.identity.encoding.outputs
    rowwise = [segment.layout.arrays[name] for name in segment.layout.rowwise if name not in outputs]
    return sum(np.dtype(spec.dtype).itemsize * int(np.prod(spec.chunk)) for spec in rowwise) // segment.layout.block
