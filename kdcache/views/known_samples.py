"""Known samples: the content fingerprints of a data set and of a store, and the samples in which the two differ.

A store keeps no ids. But it has a fingerprint of each sample, so those that a data set gained, lost, changed or moved
can be told apart. Shape letters: N samples of the store, M of the data set.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Activity, Progress, silent
from kdcache.errors import SampleError
from kdcache.labels.encoding import Contents
from kdcache.views.contents import content_fingerprint, unread_fingerprint
from kdcache.views.data_parts import Described, Extracted
from kdcache.views.reading import read_sample
from kdcache.views.source_samples import readers_of

COPIES = 1_000_000  # pairs of equal samples that are weighed against each other

Fingerprints = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class StoredSamples:
    """A store's samples in the order of its data set: `contents` [N] u32, their `labels` [N], and `known` [N], false
    where no block of theirs is committed yet."""

    contents: Fingerprints
    labels: IntArray
    known: Flags


@dataclass(frozen=True)
class Changes:
    """The changes from a store's samples to a data set's.

    Indices of the data set: `added`, `changed` (other contents in the same place), `moved` (equal contents in another
    place, as where files were renamed) and `relabelled`. `removed`: indices of the store's data set.
    """

    added: IntArray
    removed: IntArray
    changed: IntArray
    moved: IntArray
    relabelled: IntArray

    @property
    def only_added(self) -> bool:
        """True where all of the store's samples are there as they were, beside new ones."""
        return bool(len(self.added)) and not any(map(len, (self.removed, self.changed, self.moved, self.relabelled)))


def stored_samples(store: Extracted) -> StoredSamples:
    """The samples that a store knows, from the committed blocks of all its passes."""
    contents, known = np.zeros(store.rows, np.uint32), np.zeros(store.rows, bool)
    for segment in store.segments:
        positions = np.arange(store.rows)
        positions = positions[np.isin(positions // segment.layout.block, list(segment.commits())) & ~known[store.order]]
        if len(positions):
            indices = store.order[positions]
            contents[indices] = segment.read(segment.views.start, positions, ["contents"]).arrays["contents"]
            known[indices] = True
    labels = np.empty(store.rows, np.int64)
    labels[store.order] = store.labels
    return StoredSamples(contents, labels, known)


def fingerprints_of(data: Described, contents: Contents, progress: Progress = silent) -> Fingerprints:
    """The content fingerprints [M] u32 of all samples of a data set."""
    values = np.empty(len(data), dtype=np.uint32)
    for index, fingerprint in enumerate(_fingerprints(data, contents)):
        values[index] = fingerprint
        progress(Activity("comparing", "samples"), index + 1, len(data))
    return values


def _fingerprints(data: Described, contents: Contents) -> Iterator[int]:
    def fingerprint(index: int) -> int:
        try:
            image = None if contents == "bytes" else read_sample(data.samples, index)
            return content_fingerprint(data.samples, index, image, contents)
        except SampleError:
            return unread_fingerprint(data.samples, index, contents)

    if contents == "bytes" and (count := readers_of(data.samples)) > 1:
        with ThreadPoolExecutor(count, thread_name_prefix="kdcache-contents") as readers:
            yield from readers.map(fingerprint, range(len(data)))
    else:
        yield from map(fingerprint, range(len(data)))


def changes_between(stored: StoredSamples, data: Described, contents: Fingerprints, *, same_ids: bool) -> Changes:
    """The changes from a store's samples to those of a data set with fingerprints [M]. `same_ids`: its ids are those of
    the store, in their order."""
    none = np.empty(0, np.int64)
    if same_ids:
        changed = np.flatnonzero(stored.known & (stored.contents != contents))
        return Changes(none, none, changed, none, np.flatnonzero(stored.labels != data.labels))
    pairs = _equal_pairs(stored, contents)
    is_kept = np.ones(len(stored.contents), bool)
    is_kept[pairs[:, 1]] = False
    is_new = np.ones(len(contents), bool)
    is_new[pairs[:, 0]] = False
    in_order = _longest_rise(pairs[:, 1])
    moved = np.setdiff1d(pairs[:, 0], pairs[in_order, 0])
    added, removed, changed = _gaps(pairs[in_order], is_new, is_kept & stored.known)
    relabelled = pairs[stored.labels[pairs[:, 1]] != data.labels[pairs[:, 0]], 0]
    return Changes(added, removed, changed, moved, np.sort(relabelled))


def _equal_pairs(stored: StoredSamples, contents: Fingerprints) -> IntArray:
    """Pairs [P, 2] of an index of the data set and one of the store with equal fingerprints, ascending by the first. Of
    several equal samples those go together that lie nearest to each other, measured from samples without copies."""
    places, stored_places = (
        _places(contents, range(len(contents))),
        _places(stored.contents, np.flatnonzero(stored.known).tolist()),
    )
    common = {value: (places[value], indices) for value, indices in stored_places.items() if value in places}
    single = sorted((left[0], right[0]) for left, right in common.values() if len(left) == len(right) == 1)
    anchors = np.array(single, dtype=np.int64).reshape(-1, 2)
    anchors = anchors[_longest_rise(anchors[:, 1])]
    pairs = list(single)
    for left, right in common.values():
        if len(left) == len(right) == 1:
            continue
        if len(left) == len(right) or len(left) * len(right) > COPIES:
            pairs += zip(left, right, strict=False)
            continue
        free = list(left)
        for index in right[: len(left)]:
            before = int(np.searchsorted(anchors[:, 1], index)) - 1
            offset = int(anchors[before, 0] - anchors[before, 1]) if before >= 0 else 0
            nearest = min(free, key=lambda place: abs(place - index - offset))
            free.remove(nearest)
            pairs.append((nearest, index))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _places(contents: Fingerprints, indices: Iterable[int]) -> dict[int, list[int]]:
    """Ascending indices by fingerprint."""
    places: dict[int, list[int]] = {}
    for index in indices:
        places.setdefault(int(contents[index]), []).append(index)
    return places


def _longest_rise(values: IntArray) -> IntArray:
    """Places of a longest ascending subsequence of distinct values [P]."""
    tails: list[int] = []  # the least last value of a subsequence of each length
    places: list[int] = []
    before = np.full(len(values), -1, dtype=np.int64)
    for place, value in enumerate(values.tolist()):
        length = bisect_left(tails, value)
        before[place] = places[length - 1] if length else -1
        tails[length : length + 1] = [value]
        places[length : length + 1] = [place]
    chain, place = [], places[-1] if places else -1
    while place >= 0:
        chain.append(place)
        place = int(before[place])
    return np.array(chain[::-1], dtype=np.int64)


def _gaps(pairs: IntArray, is_new: Flags, is_gone: Flags) -> tuple[IntArray, IntArray, IntArray]:
    """Added, removed and changed samples: as many new ones as gone ones between the same neighbours were changed."""
    added, removed, changed = list[int](), list[int](), list[int]()
    edges = np.concatenate([[[-1, -1]], pairs, [[len(is_new), len(is_gone)]]]).tolist()
    for (left, stored_left), (right, stored_right) in pairwise(edges):
        new = [index for index in range(left + 1, right) if is_new[index]]
        gone = [index for index in range(stored_left + 1, stored_right) if is_gone[index]]
        if len(new) == len(gone):
            changed += new
        else:
            added, removed = added + new, removed + gone
    return (*(np.array(indices, dtype=np.int64) for indices in (added, removed, changed)),)  # type: ignore[return-value]
