"""Pictures of results, drawn by matplotlib where it is installed."""

from pathlib import Path
from typing import Any

from kdcache.calibration import Calibration, ReliabilityBin
from kdcache.errors import InvalidInputError

KINDS = (".png", ".pdf", ".svg")


def check_picture(path: Path) -> None:
    """Refuse, before the work is done, what could not be drawn at its end. Raises InvalidInputError."""
    _figure_class()
    if path.suffix not in KINDS:
        raise InvalidInputError(f"plot {path} ends in {path.suffix or 'no suffix'!r}; it can be {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise InvalidInputError(f"plot {path}: there is no folder {path.parent}; make it first")


def plot_calibration(found: Calibration, path: Path) -> None:
    """NLL over T, and the reliability diagrams at T = 1 and at T*, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = _figure_class()(figsize=(12, 4), layout="constrained")
    curve, before, after = figure.subplots(1, 3)
    _draw_curve(curve, found)
    _draw_reliability(before, found.bins_before, f"T = 1: ECE {found.ece_before:.4f}")
    _draw_reliability(after, found.bins_after, f"T = {found.temperature:.4g}: ECE {found.ece_after:.4f}")
    figure.savefig(path, dpi=120)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInputError("matplotlib is not installed; pip install 'kdcache[plots]'") from error
    return Figure


def _draw_curve(axes: Any, found: Calibration) -> None:
    temperatures, losses = zip(*found.curve, strict=True)
    axes.semilogx(temperatures, losses, "-", color="tab:blue")
    axes.plot(1.0, found.nll_before, "o", color="0.4", label=f"T = 1: {found.nll_before:.4f}")
    axes.plot(found.temperature, found.nll_after, "D", color="tab:red", label=_best(found))
    spread = 4 * max(found.nll_before - found.nll_after, 0.05 * found.nll_after)
    axes.set_ylim(found.nll_after - 0.05 * spread, found.nll_after + spread)
    axes.set_xlabel("temperature T")
    axes.set_ylabel("NLL, nats a row")
    axes.set_title(f"view {found.view}, {found.rows:,} rows, accuracy {found.accuracy:.4f}", fontsize=10)
    axes.legend(fontsize=8)


def _best(found: Calibration) -> str:
    return f"T* = {found.temperature:.4g}: {found.nll_after:.4f}" + " (at the bound)" * found.at_bound


def _draw_reliability(axes: Any, bins: tuple[ReliabilityBin, ...], title: str) -> None:
    """Accuracy a bin as bars, the share of rows as a line of points, and the diagonal of a calibrated teacher."""
    rows = sum(each.rows for each in bins)
    for each in bins:
        if each.high > each.low:
            width = each.high - each.low
            axes.bar(each.low, each.accuracy, width, align="edge", color="tab:blue", alpha=0.5, edgecolor="white")
    axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], "o", color="tab:blue", ms=4)
    shares = [each.rows / rows for each in bins]
    axes.plot([each.confidence for each in bins], shares, "x", color="tab:orange", ms=5, label="share of rows")
    axes.plot([0, 1], [0, 1], "--", color="0.5", lw=1, label="calibrated")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("top probability")
    axes.set_ylabel("accuracy")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper left")
