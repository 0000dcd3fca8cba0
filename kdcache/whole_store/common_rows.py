"""The rows that two stores share: which positions hold the same sample, and reading them in bounded memory.

Two stores of one data set may have other orders, encodings and block sizes. Rows meet by dataset index and view.
Shape letters: N positions of a store, R rows in common.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdcache.store.rows import EncodedRows
from kdcache.store.segment import Segment
from kdcache.store.store import Store

IntArray = npt.NDArray[np.int64]

GROUP_BYTES = 2**26  # rows of one store that are held at a time, as stored
READ_BYTES = 2**26  # whole blocks that are decoded at a time to take rows from


@dataclass(frozen=True)
class CommonRows:
    """Positions [R] of the same samples in two stores, ascending in the first, and their dataset indices."""

    a: IntArray
    b: IntArray
    index: IntArray

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: IntArray) -> "CommonRows":
        """Some of the rows."""
        return CommonRows(self.a[rows], self.b[rows], self.index[rows])


class Pairing:
    """How the positions of two stores of one data set correspond; orders are read only where they differ."""

    def __init__(self, a: Store, b: Store) -> None:
        self.a, self.b = a, b
        self.aligned = a.identity.order.sha256 == b.identity.order.sha256
        self._to_b: IntArray | None = None

    def rows_of(self, view: int, limit: int) -> CommonRows:
        """Rows of a view that both stores have committed, at most `limit` of them (0: all).

        A sample is whole blocks, evenly spaced, where the first store's order is shuffled: a block is then as good as
        any rows, and a view is read block by block. In a given order it is rows, evenly spaced.
        """
        committed_a = _committed(self.a, view)
        mapped = np.flatnonzero(committed_a)
        there = mapped[_committed(self.b, view)[self._positions_in_b(mapped)]]
        chosen = _sample(there, self.a, view, limit) if limit and limit < len(there) else there
        return CommonRows(chosen, self._positions_in_b(chosen), self.a.order[chosen])

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
    """The rows in groups that fit the memory of one read, cut where a block of the first store ends."""
    widest = max(_row_bytes(store.segment_of(view)) for store in (a, b))
    block = a.segment_of(view).layout.block
    step = max(GROUP_BYTES // widest // block, 1) * block
    edges = np.searchsorted(rows.a, np.arange(step, a.rows, step))
    for a_part, b_part, index in zip(*(np.split(each, edges) for each in (rows.a, rows.b, rows.index)), strict=True):
        if len(a_part):
            yield CommonRows(a_part, b_part, index)


def gather(store: Store, view: int, positions: IntArray) -> EncodedRows:
    """Rows of one view at `positions` [R], in that order, reading some whole blocks at a time."""
    segment = store.segment_of(view)
    block = segment.layout.block
    order = np.argsort(positions, kind="stable")
    ascending = positions[order]
    batch = max(READ_BYTES // (_row_bytes(segment) * block), 1)
    blocks = np.unique(ascending // block)
    firsts = blocks[::batch][1:] * block  # first position of each batch but the first
    parts = [store.load(view, part) for part in np.split(ascending, np.searchsorted(ascending, firsts))]
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return EncodedRows(store.identity, ascending, arrays).take(back)


def _committed(store: Store, view: int) -> npt.NDArray[np.bool_]:
    """[N] whether a position's block is committed."""
    segment = store.segment_of(view)
    commits = segment.commits()
    blocks = np.array([block in commits for block in range(segment.layout.blocks)])
    return np.repeat(blocks, segment.layout.block)[: store.rows]


def _sample(there: IntArray, a: Store, view: int, limit: int) -> IntArray:
    if a.identity.order.kind == "given":
        return there[np.linspace(0, len(there) - 1, limit).astype(np.int64)]
    block = a.segment_of(view).layout.block
    blocks = np.unique(there // block)
    chosen = blocks[np.linspace(0, len(blocks) - 1, min(-(-limit // block), len(blocks))).astype(np.int64)]
    return there[np.isin(there // block, chosen)][:limit]


def _row_bytes(segment: Segment) -> int:
    """Bytes that one row of one view takes, as stored and not compressed."""
    rowwise = [segment.layout.arrays[name] for name in segment.layout.rowwise if name != "features"]
    return sum(np.dtype(spec.dtype).itemsize * int(np.prod(spec.chunk)) for spec in rowwise) // segment.layout.block
