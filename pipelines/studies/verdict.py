"""A claim is judged by the interval of its number over seeds, and once more with all claims of a page in view."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy.special import stdtr

from kdcache.measures.intervals import LEVEL, half_width
from kdcache.pipelines.studies.claims import Claim, Values

Verdict = Literal["shown", "not shown", "reversed"]


@dataclass(frozen=True)
class Judged:
    """The judgement of one claim: mean and 95 % interval of its number over seeds, by Student's t; `p`, the least
    level at which the interval would be on one side of the claim's bounds; and the verdict."""

    mean: float
    low: float
    high: float
    p: float
    verdict: Verdict


def judge(claim: Claim, values: Values) -> Judged:
    """Judge a claim by the values [n] of its number, one a seed.

    Shown: the whole interval is where the claim says; reversed: the whole interval is outside; not shown: it straddles
    a bound. "Same" within a margin is so the test of equivalence by two one-sided tests (Schuirmann 1987), each at half
    the level. Raises ValueError for fewer than two values and for values that are not finite.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{claim.text}: {len(values)} values, {int(np.isfinite(values).sum())} of them finite")
    mean, n = float(np.mean(values)), len(values)
    error = float(np.std(values, ddof=1)) / sqrt(n)
    half = half_width(values.tolist())
    side = -_distance(claim, mean)
    p = 2 * float(stdtr(n - 1, -abs(side) / error)) if error else float(side == 0)
    decided = p < LEVEL
    verdict: Verdict = "not shown" if not decided else "shown" if side < 0 else "reversed"
    return Judged(mean, mean - half, mean + half, min(p, 1.0), verdict)


def _distance(claim: Claim, mean: float) -> float:
    """The distance of a mean from the bounds of the claimed side; negative outside."""
    if claim.direction == "same":
        return claim.margin - abs(mean)
    return mean + claim.margin if claim.direction == "not below" else mean


def adjusted(judged: Sequence[Judged]) -> list[Verdict]:
    """Verdicts by the step-down procedure of Holm 1979 over all these claims: what is decided by chance in one claim of
    twenty is decided no more. A verdict either stays or becomes "not shown"."""
    return [
        one.verdict if stays else "not shown" for one, stays in zip(judged, decided([j.p for j in judged]), strict=True)
    ]


def decided(levels: Sequence[float]) -> list[bool]:
    """True for each claim that is still decided with all in view, by their levels p."""
    stays = [False] * len(levels)
    for rank, number in enumerate(sorted(range(len(levels)), key=levels.__getitem__)):
        if levels[number] * (len(levels) - rank) >= LEVEL:
            break
        stays[number] = True
    return stays
