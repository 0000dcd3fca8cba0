"""Rows as format 1 holds them, and their cost: bytes by array, order-0 entropy, KL by quantising.

Shape letters: V views, N positions, C classes, K kept classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import values_digest
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding
from kdcache.labels.reduction import TopK, centre, logsumexp, reduce_topk, tail_sums
from kdcache.labels.topk import TopKEncoding
from kdcache.labels.topk_labels import TopKLabels
from kdcache.store.commits import Commit, Counts, Shard
from kdcache.store.layout import labels_spec, order_spec
from kdcache.store.manifest import DatasetIdentity, Identity, OrderIdentity, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan
from kdcache.store.reading import EncodedRows
from kdcache.store.segment_layout import BLOCKS_WANTED, segment_layout
from kdcache.store.shards import encode_plain, encode_shard
from kdcache.store.store import Store
from kdcache.views.provenance import provenance
from tests.benchmarks.rows import Rows
from tests.kits.encoding import encode_full, encode_topk

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stored:
    """Rows under one encoding: the arrays [V, N, ...] of a store, `reduced` before quantising (top-k only)."""

    rows: Rows
    encoding: Encoding
    arrays: dict[str, Array]
    reduced: TopK | None


def stored(rows: Rows, encoding: Encoding) -> Stored:
    """Encode all rows. Pixel fingerprints and canary are random bytes: real ones compress as little."""
    reduced = None
    if isinstance(encoding, TopKEncoding):
        reduced = reduced_rows(rows, encoding.k)
        arrays = dict(encode_topk(reduced, encoding, rows.classes).arrays)
    else:
        arrays = dict(encode_full(centre(rows.logits)).arrays)
    rng, (views, samples) = np.random.RandomState(0), rows.logits.shape[:2]
    arrays["pixels"] = rng.randint(0, 256, (views, samples)).astype(np.uint8)
    arrays["canary"] = rng.randint(0, 256, (views, min(64, samples), 3, 8, 8)).astype(np.uint8)
    if encoding.keeps_class_means:
        assert reduced is not None
        flat = rows.logits.reshape(-1, rows.classes)
        sums, counts = tail_sums(flat, reduced.classes.reshape(len(flat), -1))
        arrays["class_means"] = (sums / np.maximum(counts, 1)).astype(np.float32)[None]
    return Stored(rows, encoding, arrays, reduced)


def reduced_rows(rows: Rows, k: int) -> TopK:
    """Top k and tail of every row, on torch for speed: [V, N, ...] numpy."""
    labels = torch.from_numpy(rows.labels)[:, None]
    views = [reduce_topk(torch.from_numpy(view), labels, k) for view in rows.logits]
    parts = ("classes", "distances", "tail", "label")
    return TopK(**{part: np.stack([getattr(view, part).numpy() for view in views]) for part in parts})


def identity_of(kept: Stored, samples: int, order: Array | None = None) -> Identity:
    """A store of `samples` samples under this encoding; nothing in it but its sizes has a say in bytes a row."""
    order = np.arange(samples, dtype=np.uint32) if order is None else order.astype(np.uint32)
    labels = np.resize(kept.rows.labels, samples).astype(np.int32)
    return Identity(
        dataset=DatasetIdentity(rows=samples, ids="ids", labels=values_digest(labels), probes="probes"),
        order=OrderIdentity(kind="given", sha256=values_digest(order)),
        views=ViewPlan(transform=TransformSpec(name="crop")),
        teacher=TeacherIdentity(name="teacher", weights="weights", classes=kept.rows.classes),
        encoding=kept.encoding,
    )


def bytes_by_array(kept: Stored) -> dict[str, float]:
    """Bytes a row of a store 64 times as large, in which all these samples are one block: its shards with index and
    checksums; the commit, twice, as a sealed store has it; canary and class means, which stand once a segment."""
    views, samples = kept.rows.logits.shape[:2]
    layout = segment_layout(identity_of(kept, BLOCKS_WANTED * samples), ViewSpan(0, views))
    shards = {name: encode_shard(spec, kept.arrays[name]) for name, spec in layout.arrays.items()}
    once = [name for name, spec in layout.arrays.items() if spec.block_axis is None]
    found = {name: len(shards[name]) / (views * samples) for name in layout.rowwise}
    found["once a segment"] = sum(len(shards[name]) for name in once) / (views * samples * BLOCKS_WANTED)
    records = {name: Shard(sha256=64 * "0", size=len(shards[name])) for name in layout.rowwise}
    commit = Commit(
        block=0, rows=views * samples, shards=records, counts=Counts(labelled=views * samples),
        provenance=provenance("cpu"),
    )  # fmt: skip
    found["commits"] = 2 * len(commit.to_bytes()) / (views * samples)
    return found


def bytes_a_sample(kept: Stored) -> float:
    """Bytes of `order` and `labels`, which stand once a sample whatever its views, in a store 64 times as large."""
    samples = BLOCKS_WANTED * kept.rows.logits.shape[1]
    order = np.random.RandomState(0).permutation(samples).astype(np.uint32)
    labels = np.resize(kept.rows.labels, samples).astype(np.int32)
    plain = [encode_plain(order_spec(samples), order), encode_plain(labels_spec(samples), labels)]
    return sum(len(chunk) for each in plain for chunk in each.values()) / samples


def write_store(kept: Stored, path: Path, order: Array | None = None) -> Store:
    """A sealed store of these rows, opened for reading, in the order of the samples or another."""
    views, samples = kept.rows.logits.shape[:2]
    order = np.arange(samples) if order is None else order
    labels = kept.rows.labels[order]
    identity = identity_of(kept, samples, order)
    store = Store.create(path, identity, order=order, labels=labels, provenance=provenance("cpu"), head=None)
    segment = store.add_segment(ViewSpan(0, views))
    for block in range(segment.layout.blocks):
        arrays = {}
        for name, spec in segment.layout.arrays_of(block).items():
            axis, span = spec.block_axis, slice(*segment.layout.block_rows(block))
            whole = kept.arrays[name]
            arrays[name] = whole if axis is None else whole[(slice(None),) * axis + (span,)]
        segment.commit(block, arrays=arrays, counts=Counts(), provenance=provenance("cpu"))
    store.seal()
    return Store.open(path)


def entropy(values: Array) -> float:
    """Order-0 entropy of some symbols in bits: what a code of each for itself takes at least."""
    counts = np.unique(values, return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


def entropy_by_array(kept: Stored) -> dict[str, float]:
    """Bytes a row at the order-0 entropy, one distribution an array; `tail` has three."""
    found = {}
    for name in ("classes", "gaps", "label", "pixels", "logits"):
        if name in kept.arrays:
            values = kept.arrays[name]
            found[name] = entropy(values) * values.size / kept.arrays["pixels"].size / 8
    if "tail" in kept.arrays:
        found["tail"] = sum(entropy(kept.arrays["tail"][:, part]) for part in range(3)) / 8
    return found


def quantising_kl(kept: Stored, temperature: float) -> float:
    """Mean KL(before, after quantising) in nats over the kept classes and the tail as one more, at T = 1, 2 or 4."""
    assert kept.reduced is not None
    part = {1.0: 0, 2.0: 1, 4.0: 2}[temperature]
    exact = np.concatenate([-kept.reduced.distances / temperature, kept.reduced.tail[..., part, None]], axis=-1)
    log_p = exact.astype(np.float64) - logsumexp(exact.astype(np.float64))[..., None]
    views = []
    for view in range(len(log_p)):
        soft = decoded(kept, view)
        log_q = np.concatenate([soft.log_probs(temperature), soft.tail_log_prob(temperature)[..., None]], axis=-1)
        views.append((np.exp(log_p[view]) * (log_p[view] - log_q)).sum(axis=-1).mean())
    return float(np.mean(views))


def decoded(kept: Stored, view: int) -> TopKLabels:
    """One view as a reader gets it, in f64."""
    samples = kept.rows.logits.shape[1]
    identity = identity_of(kept, samples)
    layout = segment_layout(identity, ViewSpan(0, len(kept.rows.logits)))
    loose = {
        name: np.moveaxis(kept.arrays[name][view], cast(int, layout.arrays[name].block_axis) - 1, 0)
        for name in layout.rowwise
    }
    soft = EncodedRows(identity.encoding, identity.space, np.arange(samples), loose).soft_labels()
    assert isinstance(soft, TopKLabels)
    return replace(soft, logits=soft.logits.astype(np.float64), tail=soft.tail.astype(np.float64))


def shared_ids(kept: Stored) -> float:
    """How many of the K ids two views of a sample have in common, on average."""
    views = kept.arrays["classes"]
    common = [
        np.mean([len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(one, other, strict=True)])
        for one, other in zip(views[:-1:2], views[1::2], strict=False)
    ]
    return float(np.mean(common))
