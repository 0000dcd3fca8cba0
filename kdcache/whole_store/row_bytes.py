"""Bytes a row of a store, as if it had been extracted with fewer classes or without its tail sketch.

A row is a (position, view). The rows of the store's first block in its first view are cut to k', encoded and
compressed by the store's own codecs. Shard index and checksums count; features, taps, canary and metadata do not.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.labels.encoding import Choice
from kdcache.labels.encodings import narrowed
from kdcache.store.array_spec import ArraySpec
from kdcache.store.segment_layout import segment_layout
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store
from kdcache.whole_store.recoding import Recoding

Array = npt.NDArray[Any]


def row_bytes(store: Store, top_k: int | None = None, *, tail: bool = True) -> float:
    """Bytes a row with the best `top_k` classes (by default all of the store's), with the sketch or without it."""
    view = store.every_view[0]
    layout = store.segment_of(view).layout
    rows = store.load(view, np.setdiff1d(np.arange(*layout.block_rows(0)), store.struck(view)))
    names = [name for name in layout.rowwise if name not in store.identity.encoding.outputs]
    arrays = {name: np.moveaxis(rows.arrays[name], 0, _axis(layout.arrays[name]) - 1)[None] for name in names}
    identity = store.identity
    if top_k is not None and top_k != identity.kept:
        choice = Choice(top_k=top_k, shuffled=False)
        identity = identity.model_copy(update={"encoding": narrowed(identity.encoding, choice, identity.space)})
        hard = store.hard_labels(view, rows.positions)
        arrays = {"pixels": arrays["pixels"], **Recoding(store.identity, identity).view(rows, hard).arrays}
    if not tail:
        arrays.pop("tail", None)
    specs = segment_layout(identity, layout.views).arrays
    sizes = []
    for name, values in arrays.items():
        data = np.ascontiguousarray(values)
        sizes.append(len(encode_shard(replace(specs[name], shard=data.shape, chunk=data.shape), data)))
    return sum(sizes) / len(rows.positions)


def _axis(spec: ArraySpec) -> int:
    assert spec.block_axis is not None
    return spec.block_axis
