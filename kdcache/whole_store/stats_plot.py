"""A figure of a store's statistics."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.figures import check_picture, figure_class, save_picture
from kdcache.labels.reduction import SKETCH_TEMPERATURES
from kdcache.whole_store.calibrate_plot import draw_reliability
from kdcache.whole_store.stats import HISTOGRAM, StoreStats

COLOURS = ("tab:blue", "tab:orange", "tab:green")


def plot_stats(stats: StoreStats, path: Path) -> None:
    """Kept mass, confidence, calibration, classes, views and bytes, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = figure_class()(figsize=(14, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    _draw_kept(panels[0][0], stats)
    _draw_confidence(panels[0][1], stats)
    _draw_labels(panels[0][2], stats)
    _draw_classes(panels[1][0], stats)
    _draw_views(panels[1][1], stats)
    _draw_bytes(panels[1][2], stats)
    name = f"{stats.soft_labels}: {stats.rows:,} rows of {len(stats.views)} views, {stats.classes:,} classes"
    figure.suptitle(name, fontsize=11)
    save_picture(figure, path)


def _draw_kept(axes: Any, stats: StoreStats) -> None:
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    if stats.kept is None:
        axes.set_title("all logits are kept", fontsize=10)
        axes.set_axis_off()
        return
    axes.set_xlabel("mass of the kept classes")
    axes.set_ylabel("share of rows")
    axes.set_xlim(0, 1)
    for temperature, counts, spread, colour in zip(
        SKETCH_TEMPERATURES, stats.kept_histograms, stats.kept, COLOURS, strict=False
    ):
        label = f"T = {temperature:g}: mean {spread.mean:.3f}"
        axes.stairs(np.array(counts) / stats.rows, edges, fill=True, alpha=0.45, color=colour, label=label)
    axes.set_title("what top-k keeps", fontsize=10)
    axes.legend(fontsize=8)


def _draw_confidence(axes: Any, stats: StoreStats) -> None:
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    axes.stairs(np.array(stats.confidence_histogram) / stats.rows, edges, fill=True, alpha=0.6, color="tab:blue")
    axes.axvline(stats.confidence.mean, color="0.3", lw=1, ls="--", label=f"mean {stats.confidence.mean:.3f}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("top probability, T = 1")
    axes.set_ylabel("share of rows")
    axes.set_title(f"confidence; entropy {stats.entropy.mean:.3f} nats on average", fontsize=10)
    axes.legend(fontsize=8)


def _draw_labels(axes: Any, stats: StoreStats) -> None:
    if stats.ece is None:
        axes.set_title("no calibration: no labels, or two a row", fontsize=10)
        axes.set_axis_off()
        return
    draw_reliability(axes, stats.reliability, f"accuracy {stats.accuracy:.4f}, ECE {stats.ece:.4f}")


def _draw_classes(axes: Any, stats: StoreStats) -> None:
    """Shares by class, largest first. Either curve has its own order of classes: it shows how long the tail is."""
    for counts, name, style in (
        (stats.top_by_class, "top class of rows", "-"),
        (stats.labels_by_class, "hard label of positions", "--"),
    ):
        shares = np.sort(np.array(counts))[::-1] / max(sum(counts), 1)
        axes.plot(np.arange(1, len(shares) + 1), shares, style, label=name)
    axes.axhline(1 / stats.classes, color="0.6", lw=1, ls=":", label="all alike")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("class, the most frequent first")
    axes.set_ylabel("share")
    axes.set_title(f"classes: {stats.classes_in_use:.1f} in use, {stats.classes_never_top} never on top", fontsize=10)
    axes.legend(fontsize=8)


def _draw_views(axes: Any, stats: StoreStats) -> None:
    """Shares by view. Views stand side by side, whatever their numbers."""
    places = np.arange(len(stats.views))
    for name, style, colour in (
        ("confidence", "s-", "tab:blue"),
        ("accuracy", "o-", "tab:orange"),
        ("agreement", "^--", "tab:green"),
    ):
        values = [getattr(view_stats, name) for view_stats in stats.views]
        if any(value is not None for value in values):
            axes.plot(places, [np.nan if value is None else value for value in values], style, color=colour, label=name)
    step = max(len(places) // 12, 1)
    axes.set_xticks(places[::step], [str(view_stats.view) for view_stats in stats.views[::step]])
    axes.set_ylim(top=1.01)
    axes.set_xlabel("view")
    axes.set_ylabel("share of rows, or mean")
    axes.set_title("by view", fontsize=10)
    axes.legend(fontsize=8)


def _draw_bytes(axes: Any, stats: StoreStats) -> None:
    arrays = sorted(stats.arrays, key=lambda array: array.a_row)
    bars = axes.barh([array.name for array in arrays], [array.a_row for array in arrays], color="tab:blue", alpha=0.6)
    axes.bar_label(bars, [f"{array.a_row:.2f}" for array in arrays], padding=3, fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel("bytes a row")
    axes.set_title(f"{stats.bytes_a_row:.2f} bytes a row on disk", fontsize=10)
