"""Spreads of values that come a piece at a time, from counts in fine bins: logarithmic ones, or equal ones.

Counts are added exactly; sums of values are added in the order in which pieces are joined."""

from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.records import Record

LOWEST, HIGHEST = -9, 3  # decades; a value below 1e-9 counts as 0
BINS = 500  # a decade: a median is known to 0.25 % of itself
EDGES = np.logspace(LOWEST, HIGHEST, (HIGHEST - LOWEST) * BINS + 1)


class Spread(Record):
    """Mean, median and largest of the finite values (None where there are none), and the count of infinite ones. The
    median is known to 0.25 %; below 1e-9 it is 0."""

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
        finite_values = values[np.isfinite(values)]
        self.infinite += len(values) - len(finite_values)
        self.counts += np.bincount(np.searchsorted(EDGES, finite_values, side="right"), minlength=len(self.counts))
        self.total += float(finite_values.sum())
        self.largest = max(self.largest, float(finite_values.max(initial=0.0)))

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


EQUAL = 1000  # bins of a range: a percentile is known to a thousandth of it
PERCENTILES = (5, 25, 50, 75, 95)


class Percentiles(Record):
    """Mean, smallest and largest value, and percentiles to a thousandth of the range of what was counted."""

    mean: float
    min: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    max: float


class Range:
    """Values from 0 to `top`, counted in equal bins."""

    def __init__(self, top: float) -> None:
        self.top = top
        self.counts = np.zeros(EQUAL, dtype=np.int64)
        self.total, self.smallest, self.largest = 0.0, float("inf"), float("-inf")

    def add(self, values: npt.NDArray[Any]) -> None:
        places = np.clip((values * (EQUAL / self.top)).astype(np.int64), 0, EQUAL - 1)
        self.counts += np.bincount(places, minlength=EQUAL)
        self.total += float(values.sum())
        self.smallest = min(self.smallest, float(values.min(initial=np.inf)))
        self.largest = max(self.largest, float(values.max(initial=-np.inf)))

    def join(self, other: "Range") -> None:
        self.counts += other.counts
        self.total += other.total
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def percentiles(self) -> Percentiles:
        """Percentiles of one value or more: the middles of their bins, cut to the smallest and the largest value."""
        cumulative_counts = self.counts.cumsum()
        count = int(cumulative_counts[-1])
        ranks = [min(count * percent // 100, count - 1) for percent in PERCENTILES]
        middles = [
            (int(np.searchsorted(cumulative_counts, rank, side="right")) + 0.5) * self.top / EQUAL for rank in ranks
        ]
        p5, p25, median, p75, p95 = (min(max(middle, self.smallest), self.largest) for middle in middles)
        return Percentiles(
            mean=self.total / count,
            min=self.smallest,
            p5=p5,
            p25=p25,
            median=median,
            p75=p75,
            p95=p95,
            max=self.largest,
        )

    def coarse(self, bins: int) -> tuple[int, ...]:
        """Counts in fewer bins."""
        return tuple(self.counts.reshape(bins, -1).sum(axis=1).tolist())
