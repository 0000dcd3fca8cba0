"""A figure of a comparison: rows by KL, and agreement by view."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.figures import check_picture, figure_class, save_picture
from kdcache.errors import InvalidInputError
from kdcache.whole_store.diff import StoreDifference
from kdcache.whole_store.row_comparison import PER_DECADE, RowComparison
from kdcache.whole_store.tally import HIGHEST, LOWEST


def plot_difference(difference: StoreDifference, path: Path) -> None:
    """Rows by KL, and agreement by view, into a .png, .pdf or .svg file.

    Raises InvalidInputError where no rows were compared."""
    check_picture(path)
    if difference.rows is None:
        raise InvalidInputError(f"plot {path}: there is nothing to draw, no rows were compared: {difference.note}")
    figure = figure_class()(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_spread(left, difference.rows)
    _draw_views(right, difference.rows)
    save_picture(figure, path)


def _draw_spread(axes: Any, rows: RowComparison) -> None:
    """Rows by KL on a logarithmic axis. Rows below or above all bins are drawn in one more bin at either end."""
    edges = np.linspace(LOWEST, HIGHEST, (HIGHEST - LOWEST) * PER_DECADE + 1)
    edges = np.array([edges[0] - 1 / PER_DECADE, *edges, edges[-1] + 1 / PER_DECADE])
    for counts, name, colour in (
        (rows.histogram_ab, "KL(A || B)", "tab:blue"),
        (rows.histogram_ba, "KL(B || A)", "tab:orange"),
    ):
        axes.stairs(counts, edges, fill=True, alpha=0.4, color=colour, label=name)
    filled_bins = np.flatnonzero(np.add(rows.histogram_ab, rows.histogram_ba))
    low, high = (edges[filled_bins.min()], edges[filled_bins.max() + 1]) if len(filled_bins) else (LOWEST, HIGHEST)
    axes.set_xlim(low - 0.2, high + 0.2)
    decades = [decade for decade in range(LOWEST, HIGHEST + 1) if low <= decade <= high]
    axes.set_xticks(decades, [f"{10.0**decade:g}" if decade > LOWEST else "0" for decade in decades])
    axes.set_xlabel(f"KL at T = {rows.temperature:g}, nats" + ("" if rows.exact else ", at least"))
    axes.set_ylabel("rows")
    spreads = (rows.kl_ab, rows.kl_ba)
    medians = " and ".join("-" if spread.median is None else f"{spread.median:.3g}" for spread in spreads)
    axes.set_title(f"{rows.rows:,} rows, medians {medians}", fontsize=10)
    axes.legend(fontsize=8)


def _draw_views(axes: Any, rows: RowComparison) -> None:
    """Shares by view. Views stand side by side, whatever their numbers."""
    places = np.arange(len(rows.views))
    axes.plot(
        places, [comparison.agreement for comparison in rows.views], "o-", color="tab:blue", label="equal top class"
    )
    label = f"overlap of the top {rows.top_k}"
    axes.plot(places, [comparison.overlap for comparison in rows.views], "s--", color="tab:green", label=label)
    step = max(len(places) // 12, 1)
    axes.set_xticks(places[::step], [str(comparison.view) for comparison in rows.views[::step]])
    lowest = min(min(comparison.agreement, comparison.overlap) for comparison in rows.views)
    axes.set_ylim(max(lowest - 0.1, 0), 1.01)
    axes.set_xlabel("view")
    axes.set_ylabel("share of rows")
    axes.set_title(f"agreement {rows.agreement:.4f}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
