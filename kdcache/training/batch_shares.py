"""How the rows of one batch are shared out among processes: a fixed rule, mixing partners in one share."""

import numpy as np

from kdcache.base.arrays import IntArray


def share_sizes(pairs: int, singles: int, world_size: int) -> tuple[IntArray, IntArray]:
    """Pairs [W] and single rows [W] of each process's share of a batch.

    Pairs are dealt out evenly, the first processes having one more; single rows then even the shares out. So shares
    differ by one row without pairs, by two at most with them, and the first process has rows wherever there are any.
    """
    paired = near_equal(pairs, world_size)
    single = near_equal(2 * pairs + singles, world_size) - 2 * paired
    if (single < 0).any():  # too few to even out: they go to the processes that have a pair less
        fewer = paired < paired[0]
        single = np.zeros_like(paired)
        single[fewer] = near_equal(singles, int(fewer.sum()))
    return paired, single


def near_equal(rows: int, count: int) -> IntArray:
    """Sizes [count] of near-equal parts of some rows, the larger ones first."""
    least, more = divmod(rows, count)
    return least + (np.arange(count) < more)
