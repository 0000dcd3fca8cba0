"""Sums over the rows of a block for a store's statistics; the sums of blocks are joined.

Shape letters: Vs views of a segment, R rows of a block, B rows of a piece, K kept classes, C classes.
"""

from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.calibration_bins import BINS, calibration_sums
from kdcache.base.view_span import ViewSpan
from kdcache.labels.reduction import SKETCH_TEMPERATURES
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.reading import EncodedRows
from kdcache.whole_store.blocks import block_labels, block_unanswered, read_block, view_rows
from kdcache.whole_store.output_values import OutputSums, sum_outputs
from kdcache.whole_store.store_address import StoreAddress
from kdcache.whole_store.tally import Range

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

STRUCK = -1  # in place of a row's top class
PIECE = 2**19  # logits in f64 at a time
COUNTS = ("rows", "unlabelled", "correct", "agreeing", "pairs", "struck")


class ViewSums:
    """Sums over rows of one view. `agreeing` counts, row by row, the pass's other views with the same top class;
    `pairs` counts those that have an answer. `calibration` [3, 16] and `nll` are over labelled rows, `unlabelled`
    counts the others, and `struck` the rows without an answer, which count nowhere else."""

    def __init__(self) -> None:
        self.rows = self.unlabelled = self.correct = self.agreeing = self.pairs = self.struck = 0
        self.nll = self.confidence = self.entropy = 0.0
        self.kept = np.zeros(len(SKETCH_TEMPERATURES))
        self.calibration = np.zeros((3, BINS + 1))

    def join(self, other: "ViewSums") -> None:
        for name in (*COUNTS, "nll", "confidence", "entropy"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.kept += other.kept
        self.calibration += other.calibration


class Sums:
    """Sums by view, and over all views: spreads, and rows by top class. `positions` counts the positions with several
    answered views in a pass, and `unanimous` those of them that have one top class in all of these."""

    def __init__(self, classes: int) -> None:
        self.by_view: dict[int, ViewSums] = {}
        self.kept = [Range(1.0) for _ in SKETCH_TEMPERATURES]
        self.entropy = Range(log(classes))
        self.confidence = Range(1.0)
        self.top = np.zeros(classes, dtype=np.int64)
        self.positions = self.unanimous = 0
        self.outputs: dict[str, OutputSums] = {}

    @property
    def _ranges(self) -> list[Range]:
        return [*self.kept, self.entropy, self.confidence]

    def join(self, other: "Sums") -> None:
        for view, view_sums in other.by_view.items():
            self.by_view.setdefault(view, ViewSums()).join(view_sums)
        for mine, theirs in zip(self._ranges, other._ranges, strict=True):
            mine.join(theirs)
        self.top += other.top
        self.positions += other.positions
        self.unanimous += other.unanimous
        for name, output_sums in other.outputs.items():
            self.outputs.setdefault(name, OutputSums()).join(output_sums)


def sum_block(address: StoreAddress, block_name: tuple[str, int]) -> Sums:
    """The sums over all rows of one block, named by segment and number. On a worker."""
    name, block = block_name
    store, segment = address.store(), address.segment(name)
    arrays = read_block(segment, block, segment.identity.encoding.arrays(segment.identity.space))
    labels, sums = block_labels(store, segment, block), Sums(segment.identity.teacher.label_classes)
    struck, temperatures = block_unanswered(store, segment, block), segment.identity.encoding.tail_temperatures
    tops = np.full(struck.shape, STRUCK)
    for place, view in enumerate(segment.views):
        answered = np.flatnonzero(~struck[place])
        rows = view_rows(segment, block, arrays, place, labels[place]).take(answered)
        view_sums = sums.by_view[view] = ViewSums()
        view_sums.struck = int(struck[place].sum())
        pieces = [_add(sums, view_sums, *piece, temperatures) for piece in _pieces(rows, labels[place][answered])]
        tops[place, answered] = np.concatenate([np.empty(0, dtype=np.int64), *pieces])
    _compare_views(sums, tops, segment.views)
    sums.outputs = sum_outputs(segment, block)
    return sums


def _pieces(rows: EncodedRows, hard: IntArray) -> Iterator[tuple[SoftLabels, IntArray]]:
    """Soft labels [B] in f64, by class, and hard labels [B, L]."""
    step = max(PIECE // rows.encoding.kept(rows.space), 1)
    columns = hard if hard.ndim == 2 else hard[:, None]
    for start in range(0, len(rows.positions), step):
        part = np.arange(start, min(start + step, len(rows.positions)))
        yield rows.take(part).soft_labels().by_class().wide(), columns[part]


def _add(
    sums: Sums, view_sums: ViewSums, soft: SoftLabels, hard: IntArray, temperatures: tuple[float, ...]
) -> IntArray:
    """Count a piece, and return its top classes [B]. `temperatures`: those at which the tail's mass is stored."""
    top = np.asarray(soft.top_class).astype(np.int64)
    normalizer = np.asarray(soft.log_normalizer(1.0))
    confidence, entropy = np.exp(-normalizer), np.asarray(soft.entropy(normalizer))  # the top logit is 0
    sums.top += np.bincount(top, minlength=len(sums.top))
    sums.confidence.add(confidence)
    sums.entropy.add(entropy)
    view_sums.rows += len(top)
    view_sums.confidence += float(confidence.sum())
    view_sums.entropy += float(entropy.sum())
    if temperatures:
        for place, temperature in enumerate(temperatures):
            all_classes = normalizer if temperature == 1.0 else soft.log_normalizer(temperature)
            mass = 1.0 - np.exp(np.asarray(soft.tail_log_mass(temperature) - all_classes))
            sums.kept[place].add(mass)
            view_sums.kept[place] += float(mass.sum())
    _add_labels(view_sums, soft, hard, top, normalizer)
    return top


def _add_labels(view_sums: ViewSums, soft: SoftLabels, hard: IntArray, top: IntArray, normalizer: Array) -> None:
    """Count the labels of a piece. Under mixing a row is correct where one of its labels is its top class."""
    known_labels = (hard >= 0) & ~np.isnan(soft.label.reshape(len(top), -1))  # a masked label is none
    labelled_rows = known_labels.any(axis=1)
    correct = ((hard == top[:, None]) & known_labels).any(axis=1)
    view_sums.unlabelled += int((~labelled_rows).sum())
    view_sums.correct += int(correct.sum())
    if soft.label.ndim == 1:
        view_sums.nll -= float((soft.label - normalizer)[labelled_rows].sum())
        view_sums.calibration += calibration_sums(np.exp(-normalizer[labelled_rows]), correct[labelled_rows])


def _compare_views(sums: Sums, top_VR: IntArray, views: ViewSpan) -> None:
    """Count the agreement of the views of a pass on the top class of a position, where it is not struck."""
    answered = top_VR != STRUCK
    for view, top_R, answered_R in zip(views, top_VR, answered, strict=True):
        both = answered & answered_R
        sums.by_view[view].agreeing += int((both & (top_VR == top_R)).sum() - answered_R.sum())
        sums.by_view[view].pairs += int(both.sum() - answered_R.sum())
    several = answered.sum(axis=0) > 1
    one_class = (top_VR == top_VR.max(axis=0)) | ~answered
    sums.positions += int(several.sum())
    sums.unanimous += int((several & one_class.all(axis=0)).sum())
