"""The README's picture of two results: cached students beside live ones, and bytes a row beside other formats.

    python -m tests.benchmarks.pictures

draws it from live_vs_cached.json and performance.json, with all other pictures of docs/figures.
"""

from pathlib import Path
from typing import Any

from tests.benchmarks.answers import FKD, KS, PEERS, Results
from tests.benchmarks.canvas import canvas, save

ARMS = {"alone": "no\nteacher", "cached_topk": "store,\ntop {k}", "cached_full": "store,\nall"}
COLOURS = {"kdcache": "#0072b2", "np.memmap": "#777777", "TinyViT": "#d8a24a", "FKD": "#b9b9b9"}


def plot(study: dict[str, Any], results: Results, path: Path) -> None:
    """Left: accuracy minus that of a live teacher's student; right: bytes a row by format and k."""
    figure = canvas(3.4)
    left, right = figure.subplots(1, 2)
    _draw_differences(left, study)
    _draw_sizes(right, results)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def _draw_differences(axes: Any, study: dict[str, Any]) -> None:
    """`live - alone` is drawn as `alone - live`."""
    differences = dict(study["differences"])
    turned = differences["live-alone"]
    differences["alone-live"] = {"mean": -turned["mean"], "low": -turned["high"], "high": -turned["low"]}
    for row, arm in enumerate(ARMS):
        apart = differences[f"{arm}-live"]
        colour = "#b2182b" if arm == "alone" else COLOURS["kdcache"]
        axes.plot([apart["low"], apart["high"]], [row, row], color=colour, lw=3, solid_capstyle="butt")
        axes.plot(apart["mean"], row, "o", color=colour, ms=7)
    axes.axvline(0, color="0.3", lw=1)
    axes.set_yticks(range(len(ARMS)), [name.format(k=study["protocol"]["top_k"]) for name in ARMS.values()])
    axes.set_ylim(len(ARMS) - 0.5, -0.5)
    axes.set_xlabel("accuracy minus that of the\nlive student, points (95 %)")
    axes.set_title(f"As good as live (n {len(study['seeds'])})", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_sizes(axes: Any, results: Results) -> None:
    sizes = {"kdcache": results.sizes("bytes a row on disk")}
    sizes |= {title: results.sizes(name) for title, name in (PEERS | FKD).items()}
    height = 0.8 / len(sizes)
    for number, (title, values) in enumerate(sizes.items()):
        places = [row + height * (number + 0.5) - 0.4 for row in range(len(KS))]
        axes.barh(places, values, height=0.92 * height, color=COLOURS[title], label=title)
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f" {value:.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(KS)), [f"top {k}" for k in KS])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("bytes a row on disk,\n1,000 classes")
    axes.set_title("Small", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
