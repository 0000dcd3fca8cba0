"""The loader's inputs: stores that fit the data set, and the positions that its epochs use."""

from collections.abc import Sequence

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.records import require_equal
from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.encoding import Contents
from kdcache.store.store import Store
from kdcache.views.sources import Data


def require_fit(stores: Sequence[Store], data: Data) -> None:
    """Stores must be of this data set, and of one order and view plan. Raises MismatchError, MissingBlockError, and
    InvalidInputError for a store of sequences."""
    identity = data.identity() if stores else None
    for store in stores:
        assert identity is not None
        name = str(store.folder.root)
        if (sequence := store.identity.dataset.sequence) > 1:
            problem = f"{name} holds texts of {sequence} tokens, and the loader deals pictures alone until text sources"
            raise InvalidInputError(f"{problem} come; read its soft labels with Store.read")
        advice = "train on the data set that the store was extracted from, or extract a store for this one"
        require_equal(store.identity.dataset, identity, f"{name} is of another data set:", advice, "dataset.")
        advice = "an ensemble needs stores of one order and one view plan: extract with the same seed and transform"
        first = stores[0].identity
        require_equal(first.order, store.identity.order, f"{name} has another order:", advice, "order.")
        require_equal(first.plan, store.identity.plan, f"{name} has another view plan:", advice, "views.")
        if store.identity.teacher.classes != first.teacher.classes:
            raise InvalidInputError(f"{name} has {store.identity.teacher.classes} classes, not {first.teacher.classes}")
        if not store.every_view:
            raise MissingBlockError(f"{name} has no views yet; run kdcache extract")


def answered_positions(stores: Sequence[Store], views: Sequence[int], positions: IntArray | range) -> IntArray | range:
    """Those of ascending positions that have an answer of every store in all of these views: epochs of different views
    then have the same rows. Raises InvalidInputError where none has."""
    struck = [segment for store in stores for segment in store.segments if len(segment.struck())]
    absent = [segment.struck(view) for segment in struck for view in views if view in segment.views]
    if not absent:
        return positions
    answered = np.setdiff1d(np.asarray(positions, dtype=np.int64), np.concatenate(absent))
    if not len(answered):
        raise InvalidInputError(f"all {len(positions)} positions are struck in some view: none has an answer; extract")
    return answered


def chosen_positions(positions: IntArray | None, rows: int) -> IntArray | range:
    """Ascending positions, all by default. Raises InvalidInputError for none, for a row twice or outside."""
    if positions is None:
        return range(rows)
    positions = np.sort(np.asarray(positions, dtype=np.int64))
    count = len(positions)
    if not count or positions[0] < 0 or positions[-1] >= rows or len(np.unique(positions)) < count:
        span = f"{count} positions from {positions[0]} to {positions[-1]}" if count else "no positions"
        raise InvalidInputError(f"{span} were given; give each of some positions 0 to {rows - 1} once")
    return positions


def row_bytes(stores: Sequence[Store]) -> int:
    """Bytes in memory of one row of one view over all stores."""
    total = 0
    for store in stores:
        arrays = store.segments[0].layout.arrays
        total += sum(
            int(np.prod(spec.shape[1:])) // spec.shape[spec.block_axis] * np.dtype(spec.dtype).itemsize
            for spec in arrays.values()
            if spec.block_axis is not None and spec.by_view
        )
    return total


def contents_of_stores(stores: Sequence[Store]) -> tuple[Contents, ...]:
    """What the stores' content fingerprints are taken over."""
    return tuple(sorted({kind for store in stores for kind in store.identity.encoding.kinds_of_contents}))
