"""A picture of bytes a row: ours by array, the order-0 entropy of the same numbers, and peers, for each k."""

from pathlib import Path
from typing import Any

from tests.benchmarks.canvas import canvas, save
from tests.benchmarks.harness import Figure

COLOURS = {
    "classes": "#2f5d8a", "gaps": "#5b9bd5", "logits": "#5b9bd5", "tail": "#e0a030", "label": "#7fb069",
    "pixels": "#a05195",
}  # fmt: skip
REST, PEER = "#555555", "#c4c4c4"


def plot(figures: list[Figure], path: Path) -> None:
    """Draw nothing where there are no sizes of ImageNet rows among the figures."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ours = {_k(each): each for each in figures if "arrays" in each.details and each.target is not None}
    if not ours:
        return
    figure_of_all = canvas(0.9 + 1.9 * len(ours))
    panels = figure_of_all.subplots(len(ours), 1, squeeze=False)[:, 0]
    for axes, (k, figure) in zip(panels, ours.items(), strict=True):
        bars: list[tuple[str, dict[str, float]]] = [("kdcache", figure.details["arrays"])]
        bars += [
            ("kdcache, unpacked", each.details["arrays"])
            for each in figures
            if each.name == figure.name and each.details.get("packing") == "plain" and _k(each) == k
        ]
        bars.append(("order-0 entropy", figure.details["entropy"]))
        peers = [each for each in figures if "peer" in each.details and _k(each) == k]
        bars += [
            (each.details["peer"], {"": each.measured}) for each in peers if each.details["peer"] != "torchdistill"
        ]
        _draw(axes, bars)
        axes.axvline(figure.target, color="0.25", lw=1, ls=":")
        axes.set_title(f"top {k.removeprefix('k ')} of 1,000 classes", fontsize=10)
    panels[-1].set_xlabel("bytes a row")
    labels = {name: colour for name, colour in COLOURS.items() if name != "logits"} | {"records": REST}
    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in labels.items()]
    handles.append(Line2D([], [], color="0.25", lw=1, ls=":", label="target"))
    figure_of_all.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    save(figure_of_all, path)


def _k(figure: Figure) -> str:
    return figure.setting.partition(",")[0]


def _draw(axes: Any, bars: list[tuple[str, dict[str, float]]]) -> None:
    for row, (name, parts) in enumerate(bars):
        left = 0.0
        for part in sorted(parts, key=lambda each: list(COLOURS).index(each) if each in COLOURS else len(COLOURS)):
            colour = PEER if not part else COLOURS.get(part, REST)
            axes.barh(row, parts[part], left=left, color=colour, alpha=0.55 if "entropy" in name else 1.0, height=0.72)
            left += parts[part]
        axes.text(left, row, f" {left:.1f}" if left < 100 else f" {left:.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
