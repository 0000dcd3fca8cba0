"""What is counted over the rows of a block for a store's statistics, and how blocks are added up.

Shape letters: Vs views of a segment, R rows of a block, B rows of a piece, K kept classes, C classes.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.view_span import ViewSpan
from kdcache.labels.reduction import SKETCH_TEMPERATURES
from kdcache.labels.soft_labels import FullLabels, SoftLabels, TopKLabels
from kdcache.labels.tail import tail_mean
from kdcache.store.rows import EncodedRows
from kdcache.whole_store.blocks import block_labels, read_block, view_rows
from kdcache.whole_store.calibrate import BINS, calibration_sums
from kdcache.whole_store.store_address import Source
from kdcache.whole_store.tally import Range

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PIECE = 2**19  # logits in f64 at a time


class ViewSums:
    """Sums over rows of one view: `unlabelled` rows; `agreeing` counts other views of the pass with the same top class;
    `calibration` [3, 16] is of labelled rows, `nll` too."""

    def __init__(self) -> None:
        self.rows = self.unlabelled = self.correct = self.agreeing = 0
        self.nll = self.confidence = self.entropy = 0.0
        self.kept = np.zeros(len(SKETCH_TEMPERATURES))
        self.calibration = np.zeros((3, BINS + 1))

    def join(self, other: "ViewSums") -> None:
        for name in ("rows", "unlabelled", "correct", "agreeing", "nll", "confidence", "entropy"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kept += other.kept
        self.calibration += other.calibration


class Sums:
    """Sums by view, and over all: spreads, and rows by top class. `pairs` counts for each row the other views of its
    pass; of `positions` that have several, `unanimous` have one top class in all of them."""

    def __init__(self, classes: int) -> None:
        self.by_view: dict[int, ViewSums] = {}
        self.kept = [Range(1.0) for _ in SKETCH_TEMPERATURES]
        self.entropy = Range(log(classes))
        self.confidence = Range(1.0)
        self.top = np.zeros(classes, dtype=np.int64)
        self.positions = self.unanimous = self.pairs = 0

    @property
    def _ranges(self) -> list[Range]:
        return [*self.kept, self.entropy, self.confidence]

    def join(self, other: "Sums") -> None:
        for view, sums in other.by_view.items():
            self.by_view.setdefault(view, ViewSums()).join(sums)
        for own, more in zip(self._ranges, other._ranges, strict=True):
            own.join(more)
        self.top += other.top
        self.positions += other.positions
        self.unanimous += other.unanimous
        self.pairs += other.pairs


def sum_block(source: Source, named: tuple[str, int]) -> Sums:
    """Everything that is counted over one block. On a worker."""
    name, block = named
    store, segment = source.store(), source.segment(name)
    unused = ("features", "pixels", "canary", "class_means")
    stored = read_block(segment, block, [each for each in segment.layout.rowwise if each not in unused])
    labels, sums, tops = block_labels(store, segment, block), Sums(segment.identity.teacher.classes), []
    for row, view in enumerate(segment.views):
        rows = view_rows(segment, block, stored, row, labels[row])
        sums.by_view[view] = ViewSums()
        tops.append(np.concatenate([_add(sums, sums.by_view[view], *piece) for piece in _pieces(rows, labels[row])]))
    _compare_views(sums, np.stack(tops), segment.views)
    return sums


def _pieces(rows: EncodedRows, hard: IntArray) -> Iterator[tuple[SoftLabels, IntArray]]:
    """Soft labels [B] in f64 and hard labels [B, L]."""
    step = max(PIECE // (rows.identity.encoding.k or rows.identity.teacher.classes), 1)
    columns = hard if hard.ndim == 2 else hard[:, None]
    for start in range(0, len(rows.positions), step):
        part = np.arange(start, min(start + step, len(rows.positions)))
        soft = rows.take(part).soft_labels()
        wide: dict[str, Any] = {"logits": soft.logits.astype(np.float64), "label": soft.label.astype(np.float64)}
        if isinstance(soft, TopKLabels):
            wide["tail"] = soft.tail.astype(np.float64)
        yield replace(soft, **wide), columns[part]


def _add(sums: Sums, view: ViewSums, soft: SoftLabels, hard: IntArray) -> IntArray:
    """Count a piece; its top classes [B]."""
    top = _top(soft)
    normalizer = np.asarray(soft.log_normalizer(1.0))
    confidence, entropy = np.exp(-normalizer), entropies(soft, normalizer)  # the top logit is 0
    sums.top += np.bincount(top, minlength=len(sums.top))
    sums.confidence.add(confidence)
    sums.entropy.add(entropy)
    view.rows += len(top)
    view.confidence += float(confidence.sum())
    view.entropy += float(entropy.sum())
    if isinstance(soft, TopKLabels):
        for place, temperature in enumerate(SKETCH_TEMPERATURES):
            tail = _tail_mass(soft, normalizer) if temperature == 1.0 else soft.tail_mass(temperature)
            kept = 1.0 - tail
            sums.kept[place].add(kept)
            view.kept[place] += float(kept.sum())
    _add_labels(view, soft, hard, top, normalizer)
    return top


def _add_labels(view: ViewSums, soft: SoftLabels, hard: IntArray, top: IntArray, normalizer: Array) -> None:
    """Under mixing a row is right where one of its labels is its top class."""
    known = (hard >= 0) & ~np.isnan(soft.label.reshape(len(top), -1))  # a masked label is none
    labelled = known.any(axis=1)
    right = ((hard == top[:, None]) & known).any(axis=1)
    view.unlabelled += int((~labelled).sum())
    view.correct += int(right.sum())
    if soft.label.ndim == 1:
        view.nll -= float((soft.label - normalizer)[labelled].sum())
        view.calibration += calibration_sums(np.exp(-normalizer[labelled]), right[labelled])


def entropies(soft: SoftLabels, normalizer: Array) -> Array:
    """[B] entropy in nats at T = 1, from `log_normalizer(1.0)`. Exact for all logits; of a top-k row what the tail adds
    is estimated, see `tail.tail_mean`."""
    entropy = normalizer - _weighted(soft.logits, normalizer)
    if isinstance(soft, FullLabels):
        return np.asarray(entropy)
    mass = _tail_mass(soft, normalizer)
    mean = np.where(mass > 0, tail_mean(soft.tail, soft.logits[..., -1], soft.tail_classes), 0.0)
    return np.asarray(entropy - mass * mean)


def _tail_mass(soft: TopKLabels, normalizer: Array) -> Array:
    """[B] at T = 1."""
    return np.asarray(np.exp(soft.tail_log_mass(1.0) - normalizer))


def _weighted(logits: Array, normalizer: Array) -> Array:
    """[B] sum of p z over logits z, 0 where there is no p."""
    p = np.exp(logits - normalizer[..., None])
    return np.asarray((p * np.where(p > 0, logits, 0.0)).sum(axis=-1))


def _top(soft: SoftLabels) -> IntArray:
    top = soft.logits.argmax(axis=-1) if isinstance(soft, FullLabels) else soft.classes[:, 0]
    return np.asarray(top).astype(np.int64)


def _compare_views(sums: Sums, top_VR: IntArray, views: ViewSpan) -> None:
    """How far the views of a pass agree on the top class of a position."""
    count, rows = top_VR.shape
    if count == 1:
        return
    for view, own in zip(views, top_VR, strict=True):
        sums.by_view[view].agreeing += int((top_VR == own).sum()) - rows
    sums.positions += rows
    sums.unanimous += int((top_VR == top_VR[0]).all(axis=0).sum())
    sums.pairs += rows * count * (count - 1)
