"""The rows of a block that a fresh process draws again."""

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.store.layout import SegmentLayout

SHARE = 200  # rows (position, view), of which one is drawn again
FEWEST = 8  # positions of a segment


def chosen_rows(layout: SegmentLayout, block: int, seed: int) -> tuple[IntArray, ViewSpan]:
    """The positions of a block that are drawn again, ascending, and the views of them: about one row in 200, of each
    block its last position, where a change that stays shows, and of a segment eight positions at least."""
    start, stop = layout.block_rows(block)
    generator, rows, views = np.random.default_rng((seed, block)), stop - start, len(layout.views)
    full_blocks = layout.rows // layout.block
    fewest = -(-FEWEST // max(full_blocks, 1)) if rows == layout.block or not full_blocks else 1
    count = min(rows, max(round(rows / SHARE), fewest))
    width = min(views, max(2, -(-rows * views // (SHARE * count))))  # the last is drawn first
    first = layout.views.start + int(generator.integers(views - width + 1))
    others = np.sort(generator.choice(rows - 1, count - 1, replace=False)).astype(np.int64)
    return start + np.append(others, rows - 1), ViewSpan(first, first + width)
