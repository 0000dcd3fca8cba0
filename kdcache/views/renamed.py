"""Renamed samples: those of a data set whose ids are others than a store's, by the sums that its commits keep."""

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.store.id_sums import differing_position, id_sums
from kdcache.views.data_parts import Described, Extracted


def renamed_samples(store: Extracted, data: Described) -> IntArray | None:
    """Ascending indices of the samples of a data set whose ids are others than the store's, of as many samples. None
    where the commits do not tell: they are none, are of an older writer, or of a block in which several ids differ."""
    positions: list[int] = []
    blocks: set[range] = set()
    for segment in store.segments:
        for block, commit in segment.commits().items():
            rows = range(*segment.layout.block_rows(block))
            if not commit.ids:
                return None
            if rows in blocks:
                continue
            blocks.add(rows)
            current = id_sums(rows.start, (data.ids[index] for index in store.order[rows.start : rows.stop].tolist()))
            if current == tuple(commit.ids):
                continue
            if (position := differing_position(commit.ids, current, rows)) is None:
                return None
            positions.append(position)
    return np.sort(store.order[np.unique(positions)]) if positions else None
