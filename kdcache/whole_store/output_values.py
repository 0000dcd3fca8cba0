"""Kept outputs of a teacher, features and taps, over a whole store: their spread, and how far two stores agree on them.

Sums are small, are taken in f64 a block and an array at a time, and are added up in the order of blocks.
"""

from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.records import Record
from kdcache.labels.encoding import Encoding
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.whole_store.blocks import block_struck, read_block

Array = npt.NDArray[Any]


class OutputStats(Record):
    """One kept output over all rows that have an answer: mean and standard deviation of its numbers, the share of them
    that are 0, and the largest absolute one."""

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float
    zeros: float
    largest: float


class OutputDifference(Record):
    """One output that two stores keep under one name and shape. `relative`: the RMS of their differences over that of
    the first store's numbers (None where those are all 0); `largest`: the largest absolute difference."""

    name: str
    shape: tuple[int, ...]
    relative: float | None
    largest: float


@dataclass
class OutputSums:
    """Sums over the numbers of one kept output, or over the differences of two stores' (`squares` is then the
    first's)."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    differences: float = 0.0
    zeros: int = 0
    largest: float = 0.0

    def add(self, values: Array) -> None:
        """Count numbers."""
        wide = values.astype(np.float64)
        self.count += wide.size
        self.total += float(wide.sum())
        self.squares += float(np.square(wide).sum())
        self.zeros += int((wide == 0).sum())
        self.largest = max(self.largest, float(np.abs(wide).max(initial=0.0)))

    def add_pair(self, a: Array, b: Array) -> None:
        """Count the differences of two arrays."""
        wide = a.astype(np.float64)
        difference = wide - b
        self.squares += float(np.square(wide).sum())
        self.differences += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    def join(self, other: "OutputSums") -> None:
        for name in ("count", "total", "squares", "differences", "zeros"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)

    def stats(self, name: str, shape: tuple[int, ...]) -> OutputStats:
        mean = self.total / self.count if self.count else nan
        variance = self.squares / max(self.count, 1) - mean**2
        std, zeros = sqrt(max(variance, 0.0)), self.zeros / max(self.count, 1)
        return OutputStats(name=name, shape=shape, mean=mean, std=std, zeros=zeros, largest=self.largest)

    def difference(self, name: str, shape: tuple[int, ...]) -> OutputDifference:
        relative = sqrt(self.differences / self.squares) if self.squares else None
        return OutputDifference(name=name, shape=shape, relative=relative, largest=self.largest)


def output_arrays(encoding: Encoding) -> dict[str, str]:
    """The arrays of an encoding's features and taps, by the name of the output."""
    arrays = {"features": "features"} if encoding.features else {}
    return arrays | {tap.name: encoding.tap_array(tap.name) for tap in encoding.taps}


def outputs_here(segment: Segment) -> dict[str, str]:
    """Those arrays that a copy of a segment was not made without."""
    arrays = output_arrays(segment.identity.encoding)
    return {name: array for name, array in arrays.items() if array not in segment.left_out}


def sum_outputs(segment: Segment, block: int) -> dict[str, OutputSums]:
    """Sums over the answered rows of one block, by output. One array is held at a time."""
    answered, sums = ~block_struck(segment, block), {}
    for name, array in outputs_here(segment).items():
        values = read_block(segment, block, [array])[array]
        sums[name] = OutputSums()
        for place in range(len(segment.views)):
            sums[name].add(values[place, answered[place]])
    return sums


def common_outputs(a: Segment, b: Segment) -> dict[str, tuple[str, str]]:
    """The outputs that both segments hold in one shape, by name, each with the arrays of the two."""
    arrays_a, arrays_b = outputs_here(a), outputs_here(b)
    return {
        name: (arrays_a[name], arrays_b[name])
        for name in arrays_a.keys() & arrays_b.keys()
        if shape_of(a.identity.encoding, name) == shape_of(b.identity.encoding, name)
    }


def compare_outputs(a: Store, b: Store, view: int, rows_a: IntArray, rows_b: IntArray) -> dict[str, OutputSums]:
    """Differences between two stores in the outputs that both hold, at positions `rows_a` and `rows_b` [R] of a view,
    which are those of the same samples. A block of the first store is held at a time."""
    segments = (a.segment_of(view), b.segment_of(view))
    names = common_outputs(*segments)
    sums = {name: OutputSums() for name in sorted(names)}
    edges = np.flatnonzero(np.diff(rows_a // segments[0].layout.block)) + 1
    for part_a, part_b in zip(np.split(rows_a, edges), np.split(rows_b, edges), strict=True):
        for name in sums:
            pair = zip(segments, (part_a, part_b), names[name], strict=True)
            values = [segment.read(view, part, [array]).arrays[array] for segment, part, array in pair]
            sums[name].add_pair(*values)
    return sums


def shape_of(encoding: Encoding, name: str) -> tuple[int, ...]:
    """The shape of one row of an output."""
    return encoding.outputs[output_arrays(encoding)[name]].back
