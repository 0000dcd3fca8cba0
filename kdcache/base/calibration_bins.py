"""Bins of confidence: sums from which the expected calibration error follows, and which add up."""

import numpy as np
import numpy.typing as npt

BINS = 15


def calibration_sums(confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """[3, 16] counts of rows, sums of confidence, and counts of correct rows, by bin of `confidence` [B].

    There are 15 equal bins [low, high) on f32 values, and one for a probability that rounds to 1. torchmetrics'
    MulticlassCalibrationError counts in the same way, so the two agree on saturated networks too. Validation in
    training uses these sums as well.
    """
    confidence_f32 = confidence.astype(np.float32)
    edges = np.linspace(0, 1, BINS + 1, dtype=np.float32)
    places = np.searchsorted(edges, confidence_f32, side="right") - 1
    weights = (np.ones(len(confidence_f32)), confidence_f32, correct)
    return np.stack([np.bincount(places, weights=values, minlength=BINS + 1) for values in weights])


def calibration_error(sums: npt.NDArray[np.float64]) -> float:
    """ECE of sums [3, 16] as `calibration_sums` counts them, over at least one row."""
    return float(np.abs(sums[2] - sums[1]).sum() / sums[0].sum())
