"""Shares of one batch's rows among processes: a fixed rule, which keeps mixing partners in one share."""

import numpy as np

from kdcache.base.arrays import IntArray


def share_sizes(pairs: int, singles: int, world_size: int) -> tuple[IntArray, IntArray]:
    """The numbers of pairs [W] and single rows [W] in each process's share of a batch.

    Pairs are dealt out evenly, the first processes having one more; single rows then even the shares out. So shares
    differ by one row without pairs, by two at most with them, and the first process has rows wherever there are any.
    """
    pair_counts = near_equal(pairs, world_size)
    single_counts = near_equal(2 * pairs + singles, world_size) - 2 * pair_counts
    if (single_counts < 0).any():  # too few to even out: they go to the processes that have a pair less
        has_fewer = pair_counts < pair_counts[0]
        single_counts = np.zeros_like(pair_counts)
        single_counts[has_fewer] = near_equal(singles, int(has_fewer.sum()))
    return pair_counts, single_counts


def near_equal(rows: int, count: int) -> IntArray:
    """Sizes [count] of near-equal parts of some rows, the larger ones first."""
    size, remainder = divmod(rows, count)
    return size + (np.arange(count) < remainder)
