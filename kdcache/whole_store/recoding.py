"""From one encoding to a narrower one, without the teacher: the arrays of a block, decoded, cut and quantised again.

Top-k to top-k' at equal quantisation keeps ids, gaps and labels as they are: a prefix. The logits that leave the head
join the tail's sketch: they are known to half a gap's step, 1/32 nat (high: 1/128), and what is stored is rounded to
1/256, so a tail at T is off by 1 / (32 T) + 1/128 from that of a store extracted at k', where nothing was clamped. From
high to default a kept logit is off by 1/32 + 1/128. From all logits the steps are those of extract, on f16.

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
    """From the encoding of one identity to that of another, of the same teacher, data set, order and views."""

    source: Identity
    target: Identity

    def view(self, rows: EncodedRows) -> tuple[dict[str, Array], Flags, Flags]:
        """Soft labels [1, R, ...] of one view as the target holds them; the rows [R] that are clamped now; and those
        that may have been before, since one of their integers is the largest that there is."""
        at_limit = self._at_limit(rows)
        if self.target.encoding.k is None:
            return {"logits": rows.arrays["logits"][None]}, np.zeros_like(at_limit), at_limit
        parts = [self._piece(rows.take(part)) for part in _pieces(len(rows.positions), self.source)]
        arrays = {
            name: np.concatenate([each[name] for each, _ in parts], axis=_axis(name, self.target))
            for name in parts[0][0]
        }
        return arrays, np.concatenate([clamped for _, clamped in parts]), at_limit

    def _piece(self, rows: EncodedRows) -> tuple[dict[str, Array], Flags]:
        soft, teacher = rows.soft_labels(), self.target.teacher
        kept = _from_full(soft, rows, self.target) if isinstance(soft, FullLabels) else _cut(soft, self.target)
        one_view = TopK(kept.classes[None], kept.distances[None], kept.tail[None], kept.label[None])
        encoded = encode_topk(one_view, self.target.encoding, teacher.classes, teacher.masked_classes)
        return encoded.arrays, encoded.clamped[0]

    def _at_limit(self, rows: EncodedRows) -> Flags:
        encoding, k = self.source.encoding, self.target.encoding.k
        if encoding.k is None or k is None:
            return np.asarray((rows.arrays["logits"] == LOWEST_F16).any(axis=1))
        label = rows.arrays["label"]
        found = (label == NO_LABEL - 1).reshape(len(label), -1).any(axis=1)
        if "gaps" in rows.arrays:
            found |= (rows.arrays["gaps"][:, : k - 1] == np.iinfo(GAP_DTYPE[encoding.quantisation]).max).any(axis=1)
        return np.asarray(found)


def _pieces(count: int, identity: Identity) -> Iterator[IntArray]:
    step = max(PIECE // (identity.encoding.k or identity.teacher.classes), 1)
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def _axis(name: str, identity: Identity) -> int:
    """The axis of rows of an encoded array of leading axes [1, R]."""
    by_rank = name == "gaps" and identity.encoding.packing == "residuals"
    return 2 if name == "tail" or by_rank else 1


def _cut(soft: TopKLabels, target: Identity) -> TopK:
    """The first k' classes in f64; those that leave join the tail."""
    wide = replace(soft, logits=soft.logits.astype(np.float64), tail=soft.tail.astype(np.float64))
    kept = wide.prefix(target.encoding.k or 0)
    return TopK(kept.classes, -kept.logits, kept.tail, _columns(-soft.label))


def _from_full(soft: FullLabels, rows: EncodedRows, target: Identity) -> TopK:
    hard = _columns(rows.arrays["hard"].astype(np.int64))
    return reduce_topk(soft.logits, hard, target.encoding.k or 0, target.teacher.masked_classes)


def _columns(label: Array) -> Array:
    return label if label.ndim == 2 else label[:, None]


@dataclass
class ClassMeans:
    """Class means [C] of the target, from the rows of the source's block 0.

    Outside the new top k a class's logit is known where the source kept it. Where it did not, the source's class mean
    and the row's mean tail logit stand for it: added up over rows they give the sum that the source was made from.
    """

    recoding: Recoding
    source_means: Array | None  # [C], where the source is a top-k store
    sums: Array = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((2, self.recoding.target.teacher.classes))

    def add(self, rows: EncodedRows) -> None:
        """Count the rows of one view."""
        for part in _pieces(len(rows.positions), _all_classes(self.recoding.source)):
            soft = rows.take(part).soft_labels()
            logits, best = self._logits(soft), _best(soft, self.recoding.target.encoding.k or 0)
            self.sums += tail_sums(logits, best, self.recoding.target.teacher.masked_classes)

    def _logits(self, soft: SoftLabels) -> Array:
        """[B, C] f64 logits, those of a tail as class means have them."""
        masked = list(self.recoding.source.teacher.masked_classes)
        if isinstance(soft, FullLabels):
            return np.asarray(soft.logits.astype(np.float64))
        assert self.source_means is not None
        tail, last = soft.tail.astype(np.float64), soft.logits[:, -1].astype(np.float64)
        mean = tail_moments(tail, last, soft.tail_classes)[0] if soft.tail_classes else np.zeros(len(last))
        dense = mean[:, None] + self.source_means[None].astype(np.float64)
        dense[:, masked] = -np.inf
        np.put_along_axis(dense, soft.classes.astype(np.int64), soft.logits.astype(np.float64), axis=1)
        return np.asarray(dense)

    def values(self) -> Array:
        """[1, C] f32; 0 for a class that was never outside the top k."""
        return np.asarray(self.sums[:1] / np.maximum(self.sums[1:], 1), dtype=np.float32)


def _all_classes(identity: Identity) -> Identity:
    return identity.model_copy(update={"encoding": Encoding(name="full")})


def _best(soft: SoftLabels, k: int) -> IntArray:
    """[B, k] ids of the classes that stay."""
    if isinstance(soft, TopKLabels):
        return np.asarray(soft.classes[:, :k].astype(np.int64))
    nobody = np.full((len(soft.logits), 1), -1)
    return np.asarray(reduce_topk(soft.logits, nobody, k, soft.masked).classes)
