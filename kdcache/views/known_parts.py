"""The part of a data set that a store was extracted from: found by content fingerprints, and proven by its digests.

Copies of one picture have one fingerprint. So there may be several ways to lay the store's samples into the data set;
the digest over ids says which of them is the store's. Shape letters: N samples of the store, M of the data set.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, product

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.errors import InvalidInputError
from kdcache.views.data_parts import Described, Extracted, ids_digest
from kdcache.views.known_samples import Fingerprints, Flags, StoredSamples, fingerprints_of, stored_samples

TRIES = 10_000  # ways that are tried, fewer for large stores
HASHED = 5_000_000  # ids in all


def find_parts(
    stores: Sequence[Extracted], data: Described, progress: Progress = silent
) -> tuple[list[IntArray | None], Flags]:
    """The `part_indices` of each store, no sample in two of them, and the samples [M] that are in none. Raises
    InvalidInputError for a store that keeps no fingerprints of its samples."""
    for store in stores:
        if store.identity.encoding.contents is None:
            raise InvalidInputError(
                f"{store.folder.root} keeps no fingerprints of its samples, so its part of the data set cannot be "
                "found: extract it again"
            )
    kinds = {kind for store in stores for kind in store.identity.encoding.kinds_of_contents}
    contents = {kind: fingerprints_of(data, kind, progress) for kind in sorted(kinds)}
    parts: list[IntArray | None] = [None] * len(stores)
    free, is_further = np.ones(len(data), bool), True
    while is_further:  # what one store has taken may tell the copies of another apart
        is_further = False
        for number, store in enumerate(stores):
            if parts[number] is None:
                (kind,) = store.identity.encoding.kinds_of_contents
                part = parts[number] = part_indices(store, data, contents[kind], free)
                if part is not None:
                    free[part], is_further = False, True
    return parts, free


def part_indices(
    store: Extracted, data: Described, contents: Fingerprints, free: Flags | None = None
) -> IntArray | None:
    """Indices [N] of the store's samples in a data set with fingerprints [M], in the order of the store's data set;
    None where they are not there with their ids and labels. `free` [M]: those that may take part, all by default."""
    stored, identity = stored_samples(store), store.identity.dataset
    if len(data) < store.rows or not stored.known.all():
        return None
    places = _places(stored, data, contents, np.ones(len(data), bool) if free is None else free)
    if any(not row_places for row_places in places):
        return None
    tries = 3 + min(TRIES, HASHED // store.rows)
    for indices in islice(_embeddings(places), tries):
        if len(set(indices)) == len(indices) and ids_digest(data.ids[index] for index in indices) == identity.ids:
            return np.array(indices, dtype=np.int64)
    return None


def _places(stored: StoredSamples, data: Described, contents: Fingerprints, free: Flags) -> list[list[int]]:
    """Ascending indices of the data set, for each of the store's samples, that have its fingerprint and its label."""
    indices_by_key: dict[tuple[int, int], list[int]] = {}
    for index in np.flatnonzero(free).tolist():
        indices_by_key.setdefault((int(contents[index]), int(data.labels[index])), []).append(index)
    keys = zip(stored.contents.tolist(), stored.labels.tolist(), strict=True)
    return [indices_by_key.get(key, []) for key in keys]


def _embeddings(places: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Ways to give each of the store's samples one of its places, the likely ones first: all in the data set's order,
    as far to the front as they go, or to the back, and then what lies between. Where the order is another, equal
    samples follow one another."""
    front = _rising(places)
    if front is None:
        counts: dict[int, int] = {}  # by the first of the places, which equal samples share
        indices = []
        for row_places in places:
            rank = counts[row_places[0]] = counts.get(row_places[0], -1) + 1
            indices.append(row_places[min(rank, len(row_places) - 1)])
        yield indices
        return
    last = max(row_places[-1] for row_places in places)
    mirrored = _rising([[last - place for place in reversed(row_places)] for row_places in reversed(places)])
    assert mirrored is not None
    back = [last - place for place in reversed(mirrored)]
    yield front
    yield back
    between = [
        row_places[bisect_left(row_places, first) : bisect_right(row_places, final)]
        for row_places, first, final in zip(places, front, back, strict=True)
    ]
    yield from product(*between)


def _rising(places: Sequence[Sequence[int]]) -> list[int] | None:
    """The least ascending choice of a place for each; None where there is none."""
    choice, before = list[int](), -1
    for row_places in places:
        number = bisect_right(row_places, before)
        if number == len(row_places):
            return None
        before = row_places[number]
        choice.append(before)
    return choice
