"""The interval of a mean over few values, by Student's t."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtrit

LEVEL = 0.05  # of a 95 % interval


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean of n values, by Student's t of n - 1 degrees; n of 2 or more."""
    n = len(values)
    return float(stdtrit(n - 1, 1 - LEVEL / 2)) * stdev(values, fmean(values)) / sqrt(n)
