"""Shares of rows by fixed rules: near-equal ones, which keep mixing partners together, and ones of exact sizes."""

from collections.abc import Iterator, Sequence

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


def exact_parts(pairs: IntArray, singles: IntArray, sizes: Sequence[int]) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs [P', 2] and single rows [R'] of parts of exactly these sizes, from pairs [P, 2] and single rows [R], which
    together have rows enough.

    Single rows are spread over the parts. A pair is split only for a part of odd size when no single row is left; its
    second row is then a single one. Rows that no part takes are left out.
    """
    next_pair = next_single = 0
    for number, size in enumerate(sizes):
        rest = len(singles) - next_single
        single_count = min(size, rest // (len(sizes) - number))
        if (size - single_count) % 2:
            single_count += 1 if single_count < rest else -1
        if single_count < 0:  # no single row is left
            stop = next_pair + size // 2
            yield pairs[next_pair:stop], pairs[stop, :1]
            singles, next_single, next_pair = pairs[stop, 1:], 0, stop + 1
            continue
        pair_count = min((size - single_count) // 2, len(pairs) - next_pair)
        single_count = size - 2 * pair_count
        yield (
            pairs[next_pair : next_pair + pair_count],
            singles[next_single : next_single + single_count],
        )
        next_pair, next_single = next_pair + pair_count, next_single + single_count


def sizes_by_part(rows: Sequence[int], batch_size: int) -> list[tuple[int, ...]]:
    """The numbers of rows that each batch takes of each part. Batches are near-equal parts of all rows, which come in
    the order of their place in their part, as a share of it."""
    total = sum(rows)
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in rows])
    part_of_row = np.repeat(np.arange(len(rows)), rows)[np.argsort(places, kind="stable")]
    edges = np.cumsum([0, *near_equal(total, -(-total // batch_size)).tolist()])
    by_part = [np.flatnonzero(part_of_row == part) for part in range(len(rows))]
    return [tuple(np.diff(np.searchsorted(numbers, edges)).tolist()) for numbers in by_part]
