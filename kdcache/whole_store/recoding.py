"""Recoding of rows from one encoding to a narrower one, without the teacher: decoded, cut and quantised again.

Top-k to top-k' at equal quantisation keeps ids, gaps and labels as they are: a prefix. The logits outside k' join the
tail's sketch. They are known to half a gap's step, 1/32 nat (high: 1/128), and stored values are rounded to 1/256; so a
tail at T is off by 1 / (32 T) + 1/128 from that of a store extracted at k', where nothing was clamped. From high to
default a kept logit is off by 1/32 + 1/128. From all logits the steps are those of extract, on f16.

Shape letters: Vs views of a segment, R rows, C classes, L labels a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.labels.encoding import Encoded
from kdcache.store.manifest import Identity
from kdcache.store.reading import EncodedRows

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PIECE = 2**21  # logits in f64 at a time
CARRIED = ("pixels", "contents", "canary")  # arrays that no encoding changes, beside the outputs that it keeps


@dataclass(frozen=True)
class RecodedRows:
    """Rows of one view in another encoding: arrays [1, R, ...], and the distance [R, L] of their hard labels to the top
    logit. `clamped` [R] marks the rows that the recoding clamps, `at_limit` [R] those that may have been clamped
    before, since one of their integers is the largest that there is."""

    arrays: dict[str, Array]
    label: Array
    clamped: Flags
    at_limit: Flags


@dataclass(frozen=True)
class Recoding:
    """A change of encoding between two identities of the same teacher, data set, order and views."""

    source: Identity
    target: Identity

    @property
    def outputs(self) -> dict[str, str]:
        """The arrays of the target's features and taps, each with the source's array that holds them."""
        arrays = {"features": "features"} if self.target.encoding.features else {}
        names = [tap.name for tap in self.target.encoding.taps]
        return arrays | {self.target.encoding.tap_array(name): self.source.encoding.tap_array(name) for name in names}

    def view(self, rows: EncodedRows, hard: IntArray, words: Array | None = None) -> RecodedRows:
        """The rows of one view, with hard labels [R] or [R, 2], in the target's encoding. `words` [R] u64: the rows'
        key words, where it is drawn."""
        encoding, space = self.target.encoding, self.target.space
        at_limit = np.asarray(self.source.encoding.at_limit(rows.arrays, self.target.kept))
        columns = hard if hard.ndim == 2 else hard[:, None]
        labels: list[Array] = []
        parts: list[Encoded] = []
        for piece in _pieces(len(rows.positions), self.source.kept):
            soft = rows.take(piece).soft_labels()
            fields = encoding.fields_of(soft, columns[piece], space)
            if words is not None:
                fields |= encoding.draw(soft.all_logits(), words[piece], space)
            labels.append(fields["label"])
            parts.append(encoding.encode({name: values[None] for name, values in fields.items()}, space))
        arrays = {
            name: np.concatenate([part.arrays[name] for part in parts], axis=1 + len(array.front))
            for name, array in encoding.arrays(space).items()
        }
        clamped = np.concatenate([part.clamped[0] for part in parts])
        return RecodedRows(arrays, np.concatenate(labels), clamped, at_limit)

    def spread(self, rows: RecodedRows, answered: Flags) -> RecodedRows:
        """Recoded rows in their places among all: those that are `answered` [R], with zeros for the others, which no
        label or limit counts."""
        if answered.all():
            return rows
        fronts = {name: len(array.front) for name, array in self.target.encoding.arrays(self.target.space).items()}
        arrays = {name: _spread(values, answered, 1 + fronts[name]) for name, values in rows.arrays.items()}
        return RecodedRows(arrays, rows.label, rows.clamped, rows.at_limit)


def _spread(values: Array, answered: Flags, axis: int) -> Array:
    result = np.zeros((*values.shape[:axis], len(answered), *values.shape[axis + 1 :]), values.dtype)
    np.moveaxis(result, axis, 0)[answered] = np.moveaxis(values, axis, 0)
    return result


def _pieces(count: int, kept: int) -> Iterator[IntArray]:
    step = max(PIECE // kept, 1)
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


@dataclass
class SegmentSums:
    """The sums for the target's own arrays of a segment, such as class means, from the rows of the source's block 0.

    Where the source kept a class's logit it is known. Elsewhere the source's class mean plus the row's mean tail logit
    stand for it: over all rows these add up to the sum from which the source's mean was taken.
    """

    recoding: Recoding
    source_means: Array | None  # [C], where the source keeps class means
    sums: dict[str, Array] = field(default_factory=dict)

    def add(self, rows: EncodedRows, hard: IntArray) -> None:
        """Count the rows of one view, with hard labels [R] or [R, 2]."""
        target = self.recoding.target
        columns = hard if hard.ndim == 2 else hard[:, None]
        means = None if self.source_means is None else self.source_means.astype(np.float64)
        for piece in _pieces(len(rows.positions), target.teacher.classes):
            soft = rows.take(piece).soft_labels()
            fields = target.encoding.fields_of(soft, columns[piece], target.space)
            logits = np.asarray(soft.wide().all_logits(means))
            for name, values in target.encoding.segment_sums(logits, fields, target.space).items():
                self.sums[name] = self.sums.get(name, 0.0) + np.asarray(values)

    def values(self) -> dict[str, Array]:
        """The segment's own arrays."""
        return self.recoding.target.encoding.segment_values(self.sums)
