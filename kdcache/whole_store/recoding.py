"""Recoding of rows from one encoding to a narrower one, without the teacher: decoded, cut and quantised again.

Top-k to top-k' at equal quantisation keeps ids, gaps and labels as they are: a prefix. The logits outside k' join the
tail's sketch. They are known to half a gap's step, 1/32 nat (high: 1/128), and stored values are rounded to 1/256; so a
tail at T is off by 1 / (32 T) + 1/128 from that of a store extracted at k', where nothing was clamped. From high to
default a kept logit is off by 1/32 + 1/128. From all logits the steps are those of extract, on f16.

Shape letters: Vs views of a segment, R rows, K kept classes, C classes, L labels a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.labels.encoding import Encoding
from kdcache.labels.quantising import GAP_DTYPE, LOWEST_F16, NO_LABEL, encode_topk
from kdcache.labels.reduction import TopK, reduce_topk, tail_sums
from kdcache.labels.soft_labels import FullLabels, SoftLabels, TopKLabels
from kdcache.labels.tail import tail_moments
from kdcache.store.manifest import Identity
from kdcache.store.rows import EncodedRows

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PIECE = 2**21  # logits in f64 at a time
CARRIED = ("pixels", "features", "canary")  # arrays that no encoding of soft labels changes


@dataclass(frozen=True)
class Recoding:
    """A change of encoding between two identities of the same teacher, data set, order and views."""

    source: Identity
    target: Identity

    def view(self, rows: EncodedRows) -> tuple[dict[str, Array], Flags, Flags]:
        """The rows of one view in the target's encoding.

        Returns the arrays [1, R, ...], a mask [R] of the rows that this recoding clamps, and a mask [R] of the rows
        that may have been clamped before, since one of their integers is the largest that there is."""
        at_limit = self._at_limit(rows)
        if self.target.encoding.k is None:
            return {"logits": rows.arrays["logits"][None]}, np.zeros_like(at_limit), at_limit
        parts = [self._piece(rows.take(piece)) for piece in _pieces(len(rows.positions), self.source)]
        arrays = {
            name: np.concatenate([part_arrays[name] for part_arrays, _ in parts], axis=_axis(name, self.target))
            for name in parts[0][0]
        }
        return arrays, np.concatenate([clamped_rows for _, clamped_rows in parts]), at_limit

    def _piece(self, rows: EncodedRows) -> tuple[dict[str, Array], Flags]:
        soft, teacher = rows.soft_labels(), self.target.teacher
        topk = _from_full(soft, rows, self.target) if isinstance(soft, FullLabels) else _cut(soft, self.target)
        topk = TopK(topk.classes[None], topk.distances[None], topk.tail[None], topk.label[None])  # [1, B, ...]
        result = encode_topk(topk, self.target.encoding, teacher.classes, teacher.masked_classes)
        return result.arrays, result.clamped[0]

    def _at_limit(self, rows: EncodedRows) -> Flags:
        encoding, k = self.source.encoding, self.target.encoding.k
        if encoding.k is None or k is None:
            return np.asarray((rows.arrays["logits"] == LOWEST_F16).any(axis=1))
        label = rows.arrays["label"]
        at_limit = (label == NO_LABEL - 1).reshape(len(label), -1).any(axis=1)
        if "gaps" in rows.arrays:
            at_limit |= (rows.arrays["gaps"][:, : k - 1] == np.iinfo(GAP_DTYPE[encoding.quantisation]).max).any(axis=1)
        return np.asarray(at_limit)


def _pieces(count: int, identity: Identity) -> Iterator[IntArray]:
    step = max(PIECE // (identity.encoding.k or identity.teacher.classes), 1)
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def _axis(name: str, identity: Identity) -> int:
    """The axis of rows in an encoded array of one view."""
    by_rank = name == "gaps" and identity.encoding.packing == "residuals"
    return 2 if name == "tail" or by_rank else 1


def _cut(soft: TopKLabels, target: Identity) -> TopK:
    """The first k' classes in f64; the logits of the others join the tail."""
    wide = replace(soft, logits=soft.logits.astype(np.float64), tail=soft.tail.astype(np.float64))
    prefix = wide.prefix(target.encoding.k or 0)
    return TopK(prefix.classes, -prefix.logits, prefix.tail, _columns(-soft.label))


def _from_full(soft: FullLabels, rows: EncodedRows, target: Identity) -> TopK:
    hard = _columns(rows.arrays["hard"].astype(np.int64))
    return reduce_topk(soft.logits, hard, target.encoding.k or 0, target.teacher.masked_classes)


def _columns(label: Array) -> Array:
    return label if label.ndim == 2 else label[:, None]


@dataclass
class ClassMeans:
    """Class means [C] of the target, from the rows of the source's block 0.

    Outside the new top k a class's logit is known where the source kept it. Elsewhere the source's class mean plus the
    row's mean tail logit stand for it: over all rows these add up to the sum from which the source's mean was taken.
    """

    recoding: Recoding
    source_means: Array | None  # [C], where the source is a top-k store
    sums: Array = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((2, self.recoding.target.teacher.classes))

    def add(self, rows: EncodedRows) -> None:
        """Count the rows of one view."""
        for piece in _pieces(len(rows.positions), _all_classes(self.recoding.source)):
            soft = rows.take(piece).soft_labels()
            logits, best = self._logits(soft), _best(soft, self.recoding.target.encoding.k or 0)
            self.sums += tail_sums(logits, best, self.recoding.target.teacher.masked_classes)

    def _logits(self, soft: SoftLabels) -> Array:
        """[B, C] f64 logits; in a tail the class means stand for them."""
        masked_classes = list(self.recoding.source.teacher.masked_classes)
        if isinstance(soft, FullLabels):
            return np.asarray(soft.logits.astype(np.float64))
        assert self.source_means is not None
        tail, last_logits = soft.tail.astype(np.float64), soft.logits[:, -1].astype(np.float64)
        count = soft.tail_classes
        mean = tail_moments(tail, last_logits, count)[0] if count else np.zeros(len(tail))
        dense = mean[:, None] + self.source_means[None].astype(np.float64)
        dense[:, masked_classes] = -np.inf
        np.put_along_axis(dense, soft.classes.astype(np.int64), soft.logits.astype(np.float64), axis=1)
        return np.asarray(dense)

    def values(self) -> Array:
        """Means [1, C] f32; 0 for a class that was never outside the top k."""
        return np.asarray(self.sums[:1] / np.maximum(self.sums[1:], 1), dtype=np.float32)


def _all_classes(identity: Identity) -> Identity:
    """The identity with the full encoding: pieces are then cut by all classes."""
    return identity.model_copy(update={"encoding": Encoding(name="full")})


def _best(soft: SoftLabels, k: int) -> IntArray:
    """[B, k] ids of the best classes."""
    if isinstance(soft, TopKLabels):
        return np.asarray(soft.classes[:, :k].astype(np.int64))
    no_labels = np.full((len(soft.logits), 1), -1)
    return np.asarray(reduce_topk(soft.logits, no_labels, k, soft.masked).classes)
