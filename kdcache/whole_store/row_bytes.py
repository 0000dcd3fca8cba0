"""Bytes a row of a store, as if it had been extracted with fewer classes or without its tail sketch.

A row is a (position, view). The rows of the store's first block in its first view are cut to k', encoded and
compressed by the store's own codecs. Shard index and checksums count; features, canary and metadata do not.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.labels.encoding import Encoding
from kdcache.labels.quantising import encode_topk
from kdcache.labels.reduction import TopK
from kdcache.labels.soft_labels import TopKLabels
from kdcache.store.layout import ArraySpec, segment_layout
from kdcache.store.manifest import Identity
from kdcache.store.shards import encode_shard
from kdcache.store.store import Store

Array = npt.NDArray[Any]


def row_bytes(store: Store, top_k: int | None = None, *, tail: bool = True) -> float:
    """Bytes a row with the best `top_k` classes (by default all of the store's), with the sketch or without it."""
    view = store.every_view[0]
    layout = store.segment_of(view).layout
    rows = store.load(view, np.arange(*layout.block_rows(0)))
    soft = rows.soft_labels()
    identity = store.identity
    if top_k is not None and top_k != identity.encoding.k:
        identity = _narrow(identity, top_k)
        topk = soft.prefix(top_k)
        assert isinstance(topk, TopKLabels)
        arrays = {"pixels": rows.arrays["pixels"], **_encoded(topk, identity)}
    else:
        names = [name for name in layout.rowwise if name != "features"]
        arrays = {name: np.moveaxis(rows.arrays[name], 0, _axis(layout.arrays[name]) - 1) for name in names}
    if not tail:
        arrays.pop("tail", None)
    specs = segment_layout(identity, layout.views).arrays
    sizes = []
    for name, values in arrays.items():
        data = np.ascontiguousarray(values)[None]
        sizes.append(len(encode_shard(replace(specs[name], shard=data.shape, chunk=data.shape), data)))
    return sum(sizes) / len(rows.positions)


def _axis(spec: ArraySpec) -> int:
    assert spec.block_axis is not None
    return spec.block_axis


def _narrow(identity: Identity, top_k: int) -> Identity:
    encoding = identity.encoding
    packing = encoding.packing if encoding.k is not None else "residuals"
    topk = Encoding(name="topk", k=top_k, quantisation=encoding.quantisation, packing=packing)
    return identity.model_copy(update={"encoding": topk})


def _encoded(soft: TopKLabels, identity: Identity) -> dict[str, Array]:
    """Arrays of one view as they lie in a store."""
    label = soft.label if soft.label.ndim == 2 else soft.label[:, None]
    rows = TopK(soft.classes.astype(np.int64), -soft.logits, soft.tail, -label)
    teacher = identity.teacher
    return dict(encode_topk(rows, identity.encoding, teacher.classes, teacher.masked_classes).arrays)
