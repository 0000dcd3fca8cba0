"""Trials that alternate, medians, ratios with bootstrap intervals, and a verdict for each figure.

Machines are shared: arms take turns within a round, and a ratio is taken within rounds. A target is met where the whole
interval is within it, missed where the whole interval is outside, and open where the interval straddles it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from pydantic import Field

from kdcache.base.records import Record

Clock = Literal["wall", "cpu"]
Verdict = Literal["met", "open", "missed", "reported"]
RESAMPLES = 2000


class Figure(Record):
    """One line of docs/performance.md. `target` None: reported without one. `low`, `high`: 95 % bootstrap interval of
    `measured`, equal to it where nothing is random (bytes, counts)."""

    name: str
    unit: str
    measured: float
    low: float
    high: float
    trials: int
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    setting: str = ""
    details: dict[str, Any] = Field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """By the interval's best and worst end; "reported" without a target."""
        if self.target is None:
            return "reported"
        reached = [self.low <= self.target, self.high <= self.target]
        if self.better == "higher":
            reached = [self.low >= self.target, self.high >= self.target]
        if all(reached):
            return "met"
        return "open" if any(reached) else "missed"


@dataclass(frozen=True)
class Bench:
    """How a benchmark is to run: `quick` means toy sizes, for the test suite; `scratch` is an empty folder of its own;
    `shared` is a folder that the benchmarks of one run share, for what is slow to make (a teacher's logits)."""

    scratch: Path
    shared: Path
    quick: bool = False
    trials: int = 5


@dataclass
class Times:
    """Seconds of each arm, one for each round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, arm: str) -> float:
        return median(self.seconds[arm])

    def ratio(self, over: str, under: str) -> tuple[float, float, float]:
        """Median of the rounds' ratios over/under, and its 95 % bootstrap interval over rounds."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return interval([one / other for one, other in pairs])


def alternate(arms: Mapping[str, Callable[[], Any]], trials: int, *, clock: Clock = "wall", warm: int = 1) -> Times:
    """Run every arm `trials` times, taking turns; the order turns round each time. `warm` rounds come first, unread.

    clock "cpu": CPU seconds of this process and of its threads, where wall time is noise (not of other processes).
    """
    read = time.perf_counter if clock == "wall" else time.process_time
    names, times = list(arms), Times({name: [] for name in arms})
    for trial in range(-warm, trials):
        for name in names if trial % 2 else reversed(names):
            began = read()
            arms[name]()
            if trial >= 0:
                times.seconds[name].append(read() - began)
    return times


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median, and the 95 % bootstrap interval of the median (percentiles of 2,000 resamples, fixed seed)."""
    drawn = np.random.RandomState(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return median(values), float(low), float(high)


def timed_ratio(
    name: str, times: Times, over: str, under: str, *, target: float | None = None, setting: str = "", **details: Any
) -> Figure:
    """A figure from two arms: time of `over` by time of `under`, lower is better."""
    measured, low, high = times.ratio(over, under)
    seconds = {arm: times.median(arm) for arm in times.seconds}
    return Figure(
        name=name, unit="ratio", measured=measured, low=low, high=high, trials=len(times.seconds[over]), target=target,
        setting=setting, details={"median_seconds": seconds, **details},
    )  # fmt: skip


def timed_rate(
    name: str, times: Times, arm: str, count: float, unit: str, *, target: float | None = None, setting: str = "",
    **details: Any,
) -> Figure:  # fmt: skip
    """A figure from one arm: `count` units of work by its time, higher is better."""
    measured, low, high = interval([count / seconds for seconds in times.seconds[arm]])
    return Figure(
        name=name, unit=unit, measured=measured, low=low, high=high, trials=len(times.seconds[arm]), target=target,
        better="higher", setting=setting, details=details,
    )  # fmt: skip


def exact(
    name: str, measured: float, unit: str, *, target: float | None = None,
    better: Literal["lower", "higher"] = "lower", setting: str = "", **details: Any,
) -> Figure:  # fmt: skip
    """A figure that no clock had a part in: bytes, files, errors."""
    return Figure(
        name=name, unit=unit, measured=measured, low=measured, high=measured, trials=1, target=target, better=better,
        setting=setting, details=details,
    )  # fmt: skip
