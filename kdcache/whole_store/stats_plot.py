"""The picture of a store's statistics."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.figures import check_picture, figure_class
from kdcache.labels.reduction import SKETCH_TEMPERATURES
from kdcache.whole_store.calibrate_plot import draw_reliability
from kdcache.whole_store.stats import HISTOGRAM, StoreStats

COLOURS = ("tab:blue", "tab:orange", "tab:green")


def plot_stats(found: StoreStats, path: Path) -> None:
    """Kept mass, confidence, calibration, classes, views and bytes, into a .png, .pdf or .svg file."""
    check_picture(path)
    figure = figure_class()(figsize=(14, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    _draw_kept(panels[0][0], found)
    _draw_confidence(panels[0][1], found)
    _draw_labels(panels[0][2], found)
    _draw_classes(panels[1][0], found)
    _draw_views(panels[1][1], found)
    _draw_bytes(panels[1][2], found)
    name = f"{found.soft_labels}: {found.rows:,} rows of {len(found.views)} views, {found.classes:,} classes"
    figure.suptitle(name, fontsize=11)
    figure.savefig(path, dpi=120)


def _draw_kept(axes: Any, found: StoreStats) -> None:
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    if found.kept is None:
        axes.set_title("all logits are kept", fontsize=10)
        axes.set_axis_off()
        return
    axes.set_xlabel("mass of the kept classes")
    axes.set_ylabel("share of rows")
    axes.set_xlim(0, 1)
    for temperature, counts, kept, colour in zip(
        SKETCH_TEMPERATURES, found.kept_histograms, found.kept, COLOURS, strict=True
    ):
        label = f"T = {temperature:g}: mean {kept.mean:.3f}"
        axes.stairs(np.array(counts) / found.rows, edges, fill=True, alpha=0.45, color=colour, label=label)
    axes.set_title("what top-k keeps", fontsize=10)
    axes.legend(fontsize=8)


def _draw_confidence(axes: Any, found: StoreStats) -> None:
    edges = np.linspace(0, 1, HISTOGRAM + 1)
    axes.stairs(np.array(found.confidence_histogram) / found.rows, edges, fill=True, alpha=0.6, color="tab:blue")
    axes.axvline(found.confidence.mean, color="0.3", lw=1, ls="--", label=f"mean {found.confidence.mean:.3f}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("top probability, T = 1")
    axes.set_ylabel("share of rows")
    axes.set_title(f"confidence; entropy {found.entropy.mean:.3f} nats on average", fontsize=10)
    axes.legend(fontsize=8)


def _draw_labels(axes: Any, found: StoreStats) -> None:
    if found.ece is None:
        axes.set_title("no calibration: no labels, or two a row", fontsize=10)
        axes.set_axis_off()
        return
    draw_reliability(axes, found.reliability, f"accuracy {found.accuracy:.4f}, ECE {found.ece:.4f}")


def _draw_classes(axes: Any, found: StoreStats) -> None:
    """Shares by class, largest first, each on its own order: how long the tails are, and not which class is where."""
    for counts, name, style in (
        (found.top_by_class, "top class of rows", "-"),
        (found.labels_by_class, "hard label of positions", "--"),
    ):
        shares = np.sort(np.array(counts))[::-1] / max(sum(counts), 1)
        axes.plot(np.arange(1, len(shares) + 1), shares, style, label=name)
    axes.axhline(1 / found.classes, color="0.6", lw=1, ls=":", label="all alike")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("class, the most frequent first")
    axes.set_ylabel("share")
    axes.set_title(f"classes: {found.classes_in_use:.1f} in use, {found.classes_never_top} never on top", fontsize=10)
    axes.legend(fontsize=8)


def _draw_views(axes: Any, found: StoreStats) -> None:
    """Shares by view, each view at its own place whatever its number."""
    places = np.arange(len(found.views))
    for name, style, colour in (
        ("confidence", "s-", "tab:blue"),
        ("accuracy", "o-", "tab:orange"),
        ("agreement", "^--", "tab:green"),
    ):
        values = [getattr(each, name) for each in found.views]
        if any(value is not None for value in values):
            axes.plot(places, [np.nan if value is None else value for value in values], style, color=colour, label=name)
    step = max(len(places) // 12, 1)
    axes.set_xticks(places[::step], [str(each.view) for each in found.views[::step]])
    axes.set_ylim(top=1.01)
    axes.set_xlabel("view")
    axes.set_ylabel("share of rows, or mean")
    axes.set_title("by view", fontsize=10)
    axes.legend(fontsize=8)


def _draw_bytes(axes: Any, found: StoreStats) -> None:
    arrays = sorted(found.arrays, key=lambda each: each.a_row)
    bars = axes.barh([each.name for each in arrays], [each.a_row for each in arrays], color="tab:blue", alpha=0.6)
    axes.bar_label(bars, [f"{each.a_row:.2f}" for each in arrays], padding=3, fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel("bytes a row")
    axes.set_title(f"{found.bytes_a_row:.2f} bytes a row on disk", fontsize=10)
