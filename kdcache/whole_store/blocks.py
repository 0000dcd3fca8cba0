"""Blocks are read whole: every file is held against the sha256 of its commit, decoded, and taken apart by view.

Shape letters: Vs views of a segment, R rows of a block.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.canonical import sha256_hex
from kdcache.base.parallel import many
from kdcache.errors import DamagedError
from kdcache.store.plan import partners_of
from kdcache.store.reading import EncodedRows, rows_first
from kdcache.store.segment import Segment
from kdcache.store.shards import decode_shard, largest_shard, require_metadata
from kdcache.store.store import Store
from kdcache.store.struck import check_ticket, struck_rows
from kdcache.store.whole_arrays import labels_between

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def read_block(segment: Segment, block: int, names: Iterable[str]) -> dict[str, Array]:
    """Arrays of one block as stored, [Vs, ...].

    Raises MissingBlockError where the block is not committed and for taps that this copy was made without, DamagedError
    where a file is not the one of its commit, does not decode, or holds a class id beyond the teacher's classes, and
    where other rows are marked as struck than the commit strikes."""
    commit, names = segment.commit_of(block), list(names)
    segment.require_held(names)
    values = many(lambda name: _read(segment, block, name, commit.shards[name].sha256), names, far=segment.folder.far)
    arrays = dict(zip(names, values, strict=True))
    spec = next(iter(segment.layout.arrays.values()))
    if (ticket := spec.path.rsplit("/", 1)[-1]) in arrays:
        struck, classes = block_struck(segment, block), segment.identity.teacher.classes
        check_ticket(spec, arrays[ticket], struck, classes=classes, path=segment.folder.path(spec.key(block)))
    return arrays


def block_struck(segment: Segment, block: int) -> Flags:
    """[Vs, R] true for the rows of a block without an answer, which are never decoded."""
    return struck_rows(segment.identity.plan, segment.layout, block, segment.commit_of(block).struck)


def block_unanswered(store: Store, segment: Segment, block: int) -> Flags:
    """[Vs, R] true for the rows of a block that hold no answer: struck ones, and of texts the tokens that do not count,
    of padding and of prompts, about which nobody was asked."""
    absent = block_struck(segment, block)
    if store.identity.dataset.sequence > 1:
        absent = absent | (store.labels[slice(*segment.layout.block_rows(block))] < 0)
    return absent


def _read(segment: Segment, block: int, name: str, sha256: str) -> Array:
    folder, spec = segment.folder, segment.layout.arrays[name]
    require_metadata(folder, spec)
    key = spec.key(block)
    data = folder.require(key, folder.mend, limit=largest_shard(spec))
    if (digest := sha256_hex(data)) != sha256:
        raise DamagedError(f"{folder.path(key)} has sha256 {digest[:16]}, committed was {sha256[:16]}; {folder.mend}")
    try:
        return decode_shard(spec, data, block)
    except (ValueError, RuntimeError) as error:
        advice = f"find the block with: kdcache verify {folder.root}"
        raise DamagedError(f"{folder.path(key)} does not decode ({error}); {advice}") from error


def block_labels(store: Store, segment: Segment, block: int) -> IntArray:
    """[Vs, R] hard labels of a block, or [Vs, R, 2] with the partner's under mixing; -1 for none."""
    start, stop = segment.layout.block_rows(block)
    labels = labels_between(store.folder, store.identity, start, stop)
    plan = store.identity.plan
    if plan.mix == "none":
        return np.broadcast_to(labels, (len(segment.views), len(labels)))
    positions = np.arange(start, stop, dtype=np.int64)
    by_view = []
    for view in segment.views:
        partners = partners_of(plan, positions, view, store.rows)  # in the same block
        by_view.append(np.stack([labels, labels[partners - start]], axis=1))
    return np.stack(by_view)


def view_rows(segment: Segment, block: int, arrays: dict[str, Array], place: int, hard: IntArray) -> EncodedRows:
    """Rows [R] of one view of a block, as a reader of the store gives them.

    `arrays` come from `read_block`, `place` is the view's place on their axis Vs, `hard` [R] or [R, 2] its labels."""
    start, stop = segment.layout.block_rows(block)
    by_row = {}
    for name, values in arrays.items():
        axis = segment.layout.arrays[name].block_axis
        if axis is not None and name in segment.layout.rowwise:
            by_row[name] = rows_first(values[place], axis - 1, None)
    if not segment.identity.encoding.HOLDS_LABEL:
        by_row["hard"] = hard
    identity = segment.identity
    return EncodedRows(identity.encoding, identity.space, np.arange(start, stop, dtype=np.int64), by_row)
