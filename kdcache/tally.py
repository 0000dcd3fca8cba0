"""Spreads of values that are seen a piece at a time: mean, median and largest from counts in fine logarithmic bins."""

from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.manifest import Record

LOWEST, HIGHEST = -9, 3  # decades; a value below 1e-9 counts as 0
BINS = 500  # a decade: a median is known to 0.25 % of itself
EDGES = np.logspace(LOWEST, HIGHEST, (HIGHEST - LOWEST) * BINS + 1)


class Spread(Record):
    """Mean, median and largest of the finite values, None where there are none, and how many were infinite. The median
    is known to 0.25 %; below 1e-9 it is 0."""

    mean: float | None
    median: float | None
    max: float | None
    infinite: int


class Tally:
    """Values of 0 or more, counted."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(EDGES) + 1, dtype=np.int64)
        self.total, self.largest, self.infinite = 0.0, 0.0, 0

    def add(self, values: npt.NDArray[Any]) -> None:
        finite = values[np.isfinite(values)]
        self.infinite += len(values) - len(finite)
        self.counts += np.bincount(np.searchsorted(EDGES, finite, side="right"), minlength=len(self.counts))
        self.total += float(finite.sum())
        self.largest = max(self.largest, float(finite.max(initial=0.0)))

    def join(self, other: "Tally") -> None:
        self.counts += other.counts
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self.infinite += other.infinite

    def spread(self) -> Spread:
        count = int(self.counts.sum())
        if not count:
            return Spread(mean=None, median=None, max=None, infinite=self.infinite)
        place = int(np.searchsorted(self.counts.cumsum(), (count + 1) // 2))
        median = 0.0 if place == 0 else float(np.sqrt(EDGES[place - 1] * EDGES[min(place, len(EDGES) - 1)]))
        median = min(median, self.largest)
        return Spread(mean=self.total / count, median=median, max=self.largest, infinite=self.infinite)

    def coarse(self, per_decade: int) -> tuple[int, ...]:
        """Counts in fewer bins: values below 1e-9, then `per_decade` bins a decade up to 1e3, then those above."""
        inner = self.counts[1:-1].reshape(-1, BINS // per_decade).sum(axis=1)
        return (int(self.counts[0]), *inner.tolist(), int(self.counts[-1]))
