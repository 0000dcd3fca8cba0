"""A figure of a calibration: NLL over the temperature, and reliability before and after."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.calibration_bins import BINS
from kdcache.base.figures import check_picture, figure_class, save_picture
from kdcache.whole_store.calibrate import Calibration, ReliabilityBin

TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
SPAN = 3.0  # times below and above T = 1 and T* that the curve is drawn


def plot_calibration(calibration: Calibration, path: Path) -> None:
    """NLL over T, and the reliability diagrams at T = 1 and at T*, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = figure_class()(figsize=(12, 4), layout="constrained")
    curve, left, right = figure.subplots(1, 3)
    _draw_curve(curve, calibration)
    draw_reliability(left, calibration.bins_before, f"T = 1: ECE {calibration.ece_before:.4f}")
    draw_reliability(
        right, calibration.bins_after, f"T = {calibration.temperature:.4g}: ECE {calibration.ece_after:.4f}"
    )
    save_picture(figure, path)


def _draw_curve(axes: Any, calibration: Calibration) -> None:
    low, high = min(1.0, calibration.temperature) / SPAN, max(1.0, calibration.temperature) * SPAN
    points = [(temperature, loss) for temperature, loss in calibration.curve if low <= temperature <= high]
    axes.semilogx(*zip(*points, strict=True), ".-", color="tab:blue", lw=1, ms=4)
    axes.plot(1.0, calibration.nll_before, "o", color="0.4", label=f"T = 1: {calibration.nll_before:.4f}")
    axes.plot(calibration.temperature, calibration.nll_after, "D", color="tab:red", label=_best_label(calibration))
    axes.set_xticks([tick for tick in TICKS if points[0][0] <= tick <= points[-1][0]])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("temperature T")
    axes.set_ylabel("NLL, nats a row")
    axes.set_title(
        f"view {calibration.view}, {calibration.rows:,} rows, accuracy {calibration.accuracy:.4f}", fontsize=10
    )
    axes.legend(fontsize=8)


def _best_label(calibration: Calibration) -> str:
    return f"T* = {calibration.temperature:.4g}: {calibration.nll_after:.4f}" + " (at the bound)" * calibration.at_bound


def draw_reliability(axes: Any, bins: tuple[ReliabilityBin, ...], title: str) -> None:
    """Accuracy and share of rows of each bin as bars, and the diagonal of a calibrated teacher."""
    rows = np.array([reliability.rows for reliability in bins])
    places = np.array([round(reliability.low * BINS) for reliability in bins])
    places = np.minimum(places, BINS - 1)  # rows at exactly 1 join the last bin
    counts = np.bincount(places, rows, BINS)
    correct = np.bincount(places, rows * [reliability.accuracy for reliability in bins], BINS)
    bars: dict[str, Any] = {"align": "edge", "edgecolor": "white"}
    edges, width = np.arange(BINS) / BINS, 1 / BINS
    axes.bar(edges, correct / np.maximum(counts, 1), width, color="tab:blue", alpha=0.5, label="accuracy", **bars)
    axes.bar(edges, counts / rows.sum(), width / 3, color="tab:orange", label="share of rows", **bars)
    axes.plot([0, 1], [0, 1], "--", color="0.5", lw=1, label="calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("top probability")
    axes.set_ylabel("share")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper left")
