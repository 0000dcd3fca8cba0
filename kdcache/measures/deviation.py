"""Deviation holds the student's confidence in the teacher's decision against the teacher's own, on the logit scale.

A slope above 1: the student exaggerates, it is surer where the teacher is sure and less sure where it is not.
Rows with p below 1/2 are kept one by one (16 bytes each), since the line is known at the end alone.
From f32 logits a probability within 1e-6 of 1 has a logit known to .06; the slope moved by .002 at most in 200 trials.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.measures.counts import Counts
from kdcache.measures.facts import Facts, Floats, Group, Measure, Sums
from kdcache.measures.rows import Rows, count_of, floats_of

CLIP = 1e-6
ON_THE_LINE = 1e-5  # residuals beneath are errors of arithmetic, which have any sign


def logit(log_prob: Floats) -> Floats:
    """log u / (1 - u) of u = exp(log_prob), u kept between 1e-6 and 1 - 1e-6."""
    u = np.clip(np.exp(log_prob), CLIP, 1.0 - CLIP)
    return np.asarray(np.log(u) - np.log1p(-u))


def _sums(rows: Rows) -> dict[str, Any]:
    x = logit(floats_of(rows.log_p_best[:, 0]))
    y = logit(floats_of(rows.log_q.gather(-1, rows.best_p[:, :1])[:, 0]))
    moments = np.array([x.sum(), y.sum(), (x * x).sum(), (x * y).sum()])
    unsure = x < 0.0
    return {"rows": count_of(rows.count), "moments": moments, "unsure": _points(x[unsure], y[unsure])}


def _points(x: Floats, y: Floats) -> Counts:
    """Points as counts by key: the bits of both numbers in f32."""
    bits = [np.asarray(values, np.float32).view(np.uint32).view(np.int32) for values in (x, y)]
    return Counts.of((bits[0].astype(np.int64) << 32) | bits[1].view(np.uint32).astype(np.int64))


def _point_values(keys: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    halves = ((keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.uint32))
    return halves[0].view(np.float32).astype(np.float64), halves[1].view(np.float32).astype(np.float64)


def line(sums: Sums) -> tuple[float, float]:
    """Slope and intercept of least squares; NaN where all x are equal."""
    n, (x, y, xx, xy) = float(sums["rows"]), sums["moments"] / sums["rows"]
    variance = xx - x * x
    if n < 2 or variance <= 1e-12 * max(xx, 1.0):
        return float("nan"), float("nan")
    slope = float((xy - x * y) / variance)
    return slope, float(y - slope * x)


def underfit(sums: Sums) -> float:
    """The share of points below the line, of those with p below .5; NaN where there is none."""
    slope, intercept = line(sums)
    keys, counts = sums["unsure"].items()
    x, y = _point_values(np.asarray(keys))
    below = (y - intercept - slope * x) < -ON_THE_LINE
    total = int(np.asarray(counts).sum())
    return float(np.asarray(counts)[below].sum() / total) if total and np.isfinite(slope) else float("nan")


SOURCE = "Nagarajan et al. 2023, On student-teacher deviations"

GROUP = Group(
    needs=("teacher",),
    sums=_sums,
    measures={
        "deviation_slope": Measure(
            Facts(
                "slope",
                "least squares of logit q[y*] on logit p[y*]; y* = argmax p, logit u = log(u / (1 - u)), u cut at 1e-6",
                SOURCE,
                ("teacher",),
            ),
            lambda sums: line(sums)[0],
        ),
        "low_confidence_underfit": Measure(
            Facts("share", "share of the rows with p[y*] < 1/2 that lie below that line", SOURCE, ("teacher",)),
            underfit,
        ),
    },
)
