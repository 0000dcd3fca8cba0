"""The picture of a calibration: NLL over the temperature, and reliability before and after."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.figures import check_picture, figure_class
from kdcache.whole_store.calibrate import BINS, Calibration, ReliabilityBin

TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
SPAN = 3.0  # times below and above T = 1 and T* that the curve is drawn


def plot_calibration(found: Calibration, path: Path) -> None:
    """NLL over T, and the reliability diagrams at T = 1 and at T*, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = figure_class()(figsize=(12, 4), layout="constrained")
    curve, before, after = figure.subplots(1, 3)
    _draw_curve(curve, found)
    draw_reliability(before, found.bins_before, f"T = 1: ECE {found.ece_before:.4f}")
    draw_reliability(after, found.bins_after, f"T = {found.temperature:.4g}: ECE {found.ece_after:.4f}")
    figure.savefig(path, dpi=120)


def _draw_curve(axes: Any, found: Calibration) -> None:
    low, high = min(1.0, found.temperature) / SPAN, max(1.0, found.temperature) * SPAN
    near = [(temperature, loss) for temperature, loss in found.curve if low <= temperature <= high]
    axes.semilogx(*zip(*near, strict=True), ".-", color="tab:blue", lw=1, ms=4)
    axes.plot(1.0, found.nll_before, "o", color="0.4", label=f"T = 1: {found.nll_before:.4f}")
    axes.plot(found.temperature, found.nll_after, "D", color="tab:red", label=_best(found))
    axes.set_xticks([each for each in TICKS if near[0][0] <= each <= near[-1][0]])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("temperature T")
    axes.set_ylabel("NLL, nats a row")
    axes.set_title(f"view {found.view}, {found.rows:,} rows, accuracy {found.accuracy:.4f}", fontsize=10)
    axes.legend(fontsize=8)


def _best(found: Calibration) -> str:
    return f"T* = {found.temperature:.4g}: {found.nll_after:.4f}" + " (at the bound)" * found.at_bound


def draw_reliability(axes: Any, bins: tuple[ReliabilityBin, ...], title: str) -> None:
    """Accuracy and share of rows of each bin as bars, and the diagonal of a calibrated teacher."""
    rows = np.array([each.rows for each in bins])
    places = np.minimum([round(each.low * BINS) for each in bins], BINS - 1)  # rows at exactly 1 join the last bin
    counts = np.bincount(places, rows, BINS)
    right = np.bincount(places, rows * [each.accuracy for each in bins], BINS)
    bars: dict[str, Any] = {"align": "edge", "edgecolor": "white"}
    left, width = np.arange(BINS) / BINS, 1 / BINS
    axes.bar(left, right / np.maximum(counts, 1), width, color="tab:blue", alpha=0.5, label="accuracy", **bars)
    axes.bar(left, counts / rows.sum(), width / 3, color="tab:orange", label="share of rows", **bars)
    axes.plot([0, 1], [0, 1], "--", color="0.5", lw=1, label="calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("top probability")
    axes.set_ylabel("share")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper left")
