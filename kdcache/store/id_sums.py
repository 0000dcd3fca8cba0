"""Sums over the ids of a block's samples, kept in its commit: they tell later which id in the block is another one.

A store keeps no ids. Of a block whose positions p have ids with hashes h(p), its commit keeps sum h(p) and
sum (p + 1) h(p), modulo the prime 2^31 - 1. Where one id differs, the two differences are d and (p + 1) d, so their
quotient is its position: a code that locates one error a block.
"""

from collections.abc import Iterable, Sequence

import xxhash

PRIME = 2**31 - 1

IdSums = tuple[int, int]


def id_sums(start: int, ids: Iterable[str]) -> IdSums:
    """The sums over the ids of positions start, start + 1, ..."""
    total, weighted = 0, 0
    for position, sample_id in enumerate(ids, start):
        value = xxhash.xxh3_64_intdigest(sample_id.encode("utf-8", "surrogateescape")) % PRIME
        total, weighted = total + value, weighted + (position + 1) * value
    return total % PRIME, weighted % PRIME


def added_sums(one: Sequence[int], other: Sequence[int]) -> tuple[()] | IdSums:
    """The sums over the ids of two ranges of positions together; empty where one of them is unknown."""
    return ((one[0] + other[0]) % PRIME, (one[1] + other[1]) % PRIME) if one and other else ()


def differing_position(stored: Sequence[int], current: Sequence[int], positions: range) -> int | None:
    """The position whose id is another than the block's commit has, where it is the only one; None: several are."""
    change, weighted = ((now - before) % PRIME for now, before in zip(current, stored, strict=True))
    if not change:
        return None
    position = weighted * pow(change, -1, PRIME) % PRIME - 1
    return position if position in positions else None
