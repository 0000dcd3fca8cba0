"""Pictures of results, drawn by matplotlib where it is installed."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.calibration import BINS, Calibration, ReliabilityBin
from kdcache.errors import InvalidInputError
from kdcache.whole_store.diff import StoreDifference
from kdcache.whole_store.row_comparison import PER_DECADE, RowComparison
from kdcache.whole_store.tally import HIGHEST, LOWEST

KINDS = (".png", ".pdf", ".svg")
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
SPAN = 3.0  # times below and above T = 1 and T* that the curve is drawn


def check_picture(path: Path) -> None:
    """Refuse, before the work is done, what could not be drawn at its end. Raises InvalidInputError."""
    figure_class()
    if path.suffix not in KINDS:
        raise InvalidInputError(f"plot {path} ends in {path.suffix or 'no suffix'!r}; it can be {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise InvalidInputError(f"plot {path}: there is no folder {path.parent}; make it first")


def plot_calibration(found: Calibration, path: Path) -> None:
    """NLL over T, and the reliability diagrams at T = 1 and at T*, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = figure_class()(figsize=(12, 4), layout="constrained")
    curve, before, after = figure.subplots(1, 3)
    _draw_curve(curve, found)
    draw_reliability(before, found.bins_before, f"T = 1: ECE {found.ece_before:.4f}")
    draw_reliability(after, found.bins_after, f"T = {found.temperature:.4g}: ECE {found.ece_after:.4f}")
    figure.savefig(path, dpi=120)


def plot_difference(found: StoreDifference, path: Path) -> None:
    """How many rows have which KL, and agreement by view. Raises InvalidInputError where no rows were compared."""
    check_picture(path)
    if found.rows is None:
        raise InvalidInputError(f"plot {path}: there is nothing to draw, no rows were compared: {found.note}")
    figure = figure_class()(figsize=(11, 4), layout="constrained")
    spread, views = figure.subplots(1, 2)
    _draw_spread(spread, found.rows)
    _draw_views(views, found.rows)
    figure.savefig(path, dpi=120)


def _draw_spread(axes: Any, rows: RowComparison) -> None:
    """Rows by KL on a logarithmic axis; what is below or above the bins is drawn in a bin at its end."""
    edges = np.linspace(LOWEST, HIGHEST, (HIGHEST - LOWEST) * PER_DECADE + 1)
    edges = np.array([edges[0] - 1 / PER_DECADE, *edges, edges[-1] + 1 / PER_DECADE])
    for counts, name, colour in (
        (rows.histogram_ab, "KL(A || B)", "tab:blue"),
        (rows.histogram_ba, "KL(B || A)", "tab:orange"),
    ):
        axes.stairs(counts, edges, fill=True, alpha=0.4, color=colour, label=name)
    seen = np.flatnonzero(np.add(rows.histogram_ab, rows.histogram_ba))
    low, high = (edges[seen.min()], edges[seen.max() + 1]) if len(seen) else (LOWEST, HIGHEST)
    axes.set_xlim(low - 0.2, high + 0.2)
    decades = [each for each in range(LOWEST, HIGHEST + 1) if low <= each <= high]
    axes.set_xticks(decades, [f"{10.0**each:g}" if each > LOWEST else "0" for each in decades])
    axes.set_xlabel(f"KL at T = {rows.temperature:g}, nats" + ("" if rows.exact else ", at least"))
    axes.set_ylabel("rows")
    medians = " and ".join("-" if each.median is None else f"{each.median:.3g}" for each in (rows.kl_ab, rows.kl_ba))
    axes.set_title(f"{rows.rows:,} rows, medians {medians}", fontsize=10)
    axes.legend(fontsize=8)


def _draw_views(axes: Any, rows: RowComparison) -> None:
    """Shares by view, each view at its own place whatever its number."""
    places = np.arange(len(rows.views))
    axes.plot(places, [each.agreement for each in rows.views], "o-", color="tab:blue", label="equal top class")
    label = f"overlap of the top {rows.top_k}"
    axes.plot(places, [each.overlap for each in rows.views], "s--", color="tab:green", label=label)
    step = max(len(places) // 12, 1)
    axes.set_xticks(places[::step], [str(each.view) for each in rows.views[::step]])
    lowest = min(min(each.agreement, each.overlap) for each in rows.views)
    axes.set_ylim(max(lowest - 0.1, 0), 1.01)
    axes.set_xlabel("view")
    axes.set_ylabel("share of rows")
    axes.set_title(f"agreement {rows.agreement:.4f}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def figure_class() -> Any:
    """matplotlib's Figure. Raises InvalidInputError where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInputError("matplotlib is not installed; pip install 'kdcache[plots]'") from error
    return Figure


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
