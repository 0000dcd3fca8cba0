"""The picture of a comparison: how many rows have which KL, and agreement by view."""

from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.figures import check_picture, figure_class
from kdcache.errors import InvalidInputError
from kdcache.whole_store.diff import StoreDifference
from kdcache.whole_store.row_comparison import PER_DECADE, RowComparison
from kdcache.whole_store.tally import HIGHEST, LOWEST


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
