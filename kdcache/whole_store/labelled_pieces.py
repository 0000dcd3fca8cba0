"""The labelled rows of one view, a piece at a time: soft labels beside hard ones."""

from collections.abc import Callable, Iterator

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.store import Store

PIECE = 2**18  # logits in f64 at a time


def require_one_label(store: Store, *, advice: str) -> None:
    """Raises InvalidInputError for a store of mixed views, whose rows have two hard labels, and one without views.
    `advice`: the next step, such as "train on an unmixed store"."""
    if (mix := store.identity.plan.mix) != "none":
        raise InvalidInputError(
            f"the views of {store.folder.root} are mixed by {mix}: a row has two hard labels, and no NLL of one; "
            f"{advice} (kdcache extract --mix none)"
        )
    if not store.every_view:
        raise InvalidInputError(f"{store.folder.root} has no views yet; run kdcache extract")


def labelled_pieces(
    store: Store, view: int, *, piece: int = PIECE, passed: Callable[[int], None] = lambda rows: None
) -> Iterator[tuple[IntArray, SoftLabels, IntArray]]:
    """Positions [B], soft labels [B] in f64 and by class, and hard labels [B] of the rows of a view that have an answer
    and a hard label, at most `piece` logits at once. `passed` hears of the rows of each block that was read."""
    block = store.segment_of(view).layout.block
    step = max(1, piece // store.identity.kept)
    struck = store.struck(view)
    for block_start, block_stop in _ranges(store.rows, max(block, step // block * block)):
        positions = np.setdiff1d(np.arange(block_start, block_stop, dtype=np.int64), struck)
        rows = store.load(view, positions)
        hard = store.hard_labels(view, positions)
        for start, stop in _ranges(len(positions), step):
            soft = rows.take(np.arange(start, stop)).soft_labels().by_class()
            mask = ~np.isnan(soft.label)
            yield positions[start:stop][mask], soft.take(mask).wide(), hard[start:stop][mask]
        passed(block_stop - block_start)


def _ranges(count: int, step: int) -> list[tuple[int, int]]:
    """(start, stop) of the pieces of `step` rows that `count` rows are cut into; the last piece may be shorter."""
    return [(start, min(start + step, count)) for start in range(0, count, step)]
