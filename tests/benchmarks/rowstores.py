"""Sealed stores of any number of rows, quickly: whole blocks all hold the same rows.

Shape letters: V views, N rows of a block, C classes.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import values_digest
from kdcache.base.canonical import sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding
from kdcache.labels.reduction import TopK, reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.store.commits import Commit, Counts, Shard
from kdcache.store.layout import SegmentLayout, group_bytes, labels_spec, order_spec
from kdcache.store.manifest import DatasetIdentity, Identity, Manifest, OrderIdentity, Provenance, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.store.segment_layout import segment_layout
from kdcache.store.shards import encode_shard, put_plain
from kdcache.store.store import Store
from tests.kits.encoding import encode_topk

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """How large a store is, and whether its rows are those of a teacher or all alike (quick to make)."""

    rows: int
    views: int
    k: int = 20
    classes: int = 1000
    alike: bool = False
    packing: Literal["plain", "residuals"] = "residuals"

    @property
    def encoding(self) -> Encoding:
        return TopKEncoding(k=self.k, packing=self.packing)


def identity_of(shape: Shape, order: Array | None = None, labels: Array | None = None) -> Identity:
    """The identity of a made-up teacher; digests of `order` and `labels` by dataset index, where they are given."""
    nothing = np.zeros(0, dtype=np.int32)
    return Identity(
        dataset=DatasetIdentity(
            rows=shape.rows, ids="ids", labels=values_digest(nothing if labels is None else labels), probes="probes"
        ),
        order=OrderIdentity(kind="given", sha256=values_digest(nothing if order is None else order)),
        views=ViewPlan(transform=TransformSpec(name="crop")),
        teacher=TeacherIdentity(name="made-up", weights="w", classes=shape.classes),
        encoding=shape.encoding,
    )


def write_row_store(path: Path, shape: Shape) -> Store:
    """A sealed store whose whole blocks hold the same rows, opened for reading.

    Metadata, order, labels and the seal are written as ever; shards and commits without a sync each.
    """
    order = np.arange(shape.rows, dtype=order_spec(shape.rows).dtype)
    labels = np.zeros(shape.rows, dtype=np.int32)
    made = Manifest(identity=identity_of(shape, order, labels), provenance=Provenance(device="benchmark"))
    path.mkdir(parents=True)
    _put(f"{path}/kdcache/manifest.json", made.to_bytes())
    store = Store.open_for_writing(path)
    store.folder.put_same("zarr.json", group_bytes())
    put_plain(store.folder, order_spec(shape.rows), order)
    put_plain(store.folder, labels_spec(shape.rows), labels)
    del order, labels
    layout = store.add_segment(ViewSpan(0, shape.views)).layout
    encoded = {}
    for block in range(layout.blocks):
        first, last = layout.block_rows(block)
        kind = (last - first, block == 0)
        if kind not in encoded:
            encoded[kind] = _encoded(layout, shape, block)
        shards, data = encoded[kind]
        for name, each in data.items():
            _put(f"{path}/{layout.arrays[name].key(block)}", each)
        commit = Commit(
            block=block, rows=(last - first) * shape.views, shards=shards, counts=Counts(), provenance=made.provenance
        )
        _put(f"{path}/{layout.commit_key(block)}", commit.to_bytes())
    store.seal()
    return Store.open(path)


def _encoded(layout: SegmentLayout, shape: Shape, block: int) -> tuple[dict[str, Shard], dict[str, bytes]]:
    first, last = layout.block_rows(block)
    rows = _alike(shape, last - first) if shape.alike else _taught(shape, last - first)
    encoded = encode_topk(rows, shape.encoding, shape.classes).arrays
    pixels = np.random.RandomState(1).randint(0, 1 if shape.alike else 256, (shape.views, last - first))
    arrays = {**encoded, "pixels": pixels.astype(np.uint8)}
    arrays["canary"] = np.zeros(layout.arrays["canary"].shape, dtype=np.uint8)
    data = {name: encode_shard(spec, arrays[name]) for name, spec in layout.arrays_of(block).items()}
    return {name: Shard(sha256=sha256_hex(each), size=len(each)) for name, each in data.items()}, data


def _alike(shape: Shape, rows: int) -> TopK:
    wide = np.broadcast_to(np.arange(shape.k, dtype=np.float32), (shape.views, rows, shape.k))
    tail = np.zeros((shape.views, rows, 3), dtype=np.float32)
    return TopK(wide.astype(np.int64), wide, tail, tail[..., :1])


def _taught(shape: Shape, rows: int) -> TopK:
    """Rows whose classes go together, as a teacher's do: logits of rank 48 with biases, top one 0.5 at the median."""
    logits, labels = _low_rank(shape.views, rows, shape.classes)
    return reduce_topk(logits, labels, shape.k)


@functools.cache
def _low_rank(views: int, rows: int, classes: int) -> tuple[Array, Array]:
    rng = np.random.RandomState(0)
    features = rng.standard_normal((views * rows, 48)).astype(np.float32)
    weights = rng.standard_normal((48, classes)).astype(np.float32) * 0.58
    logits = features @ weights + rng.standard_normal(classes).astype(np.float32) * 0.5
    labels = rng.randint(0, classes, (views, rows, 1))
    return logits.reshape(views, rows, classes), labels


def _put(path: str, data: bytes) -> None:
    try:
        file = open(path, "xb")  # noqa: SIM115
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))
        file = open(path, "xb")  # noqa: SIM115
    with file:
        file.write(data)


def files_of(shape: Shape, passes: list[tuple[int, int]]) -> int:
    """Files of a sealed store whose segments hold these views, from the layout."""
    identity = identity_of(shape)
    whole = ["zarr.json", "manifest", "seal", "latest", "order/zarr.json", "labels/zarr.json"]
    chunks = sum(-(-spec.shape[0] // spec.chunk[0]) for spec in (order_spec(shape.rows), labels_spec(shape.rows)))
    return len(whole) + chunks + sum(_files_of_segment(segment_layout(identity, ViewSpan(*views))) for views in passes)


def _files_of_segment(layout: SegmentLayout) -> int:
    """Each block's shards and its commit; metadata of the group and its arrays; its record and its sealed commits."""
    shards = layout.blocks * len(layout.rowwise) + len(layout.arrays) - len(layout.rowwise)
    return shards + layout.blocks + 1 + len(layout.arrays) + 2
