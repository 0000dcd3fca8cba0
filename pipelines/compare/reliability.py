"""Reliability diagrams: the share of hits against confidence in 15 bins, and how many rows each bin holds."""

from collections.abc import Sequence

import numpy as np

from kdcache.base.calibration_bins import BINS, calibration_sums
from kdcache.measures.facts import Floats
from kdcache.pipelines.compare.comparison import Answers, Comparison
from kdcache.pipelines.compare.figures import MUTED, SMALL, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.marks import TEACHER, Mark, Marked
from kdcache.pipelines.compare.page_text import count, percent

FEW, FEWEST = 0.002, 5  # bins that hold less than this share of the rows, or fewer, are drawn pale


def reliability_panels(comparison: Comparison, groups: Sequence[Marked]) -> tuple[Panel, ...]:
    """The teacher's and each group's; a group's runs are counted together."""
    parts: list[tuple[Mark, str, Sequence[Answers], float | None]] = []
    teacher_ece = comparison.teacher_measures.get("ece")
    parts.append((TEACHER, "teacher", (comparison.teacher,), teacher_ece.value if teacher_ece else None))
    for marked in groups:
        cell = marked.group.cells.get("ece")
        parts.append((marked.mark, marked.group.name, marked.answers, cell.mean if cell else None))
    return tuple(_panel(mark, name, sums_of(answers, comparison), ece) for mark, name, answers, ece in parts)


def sums_of(answers: Sequence[Answers], comparison: Comparison) -> Floats:
    """[3, 15] rows, sums of confidence, and hits by bin, over labelled rows of all answers; a probability that rounds
    to 1 is in the last bin."""
    labelled = comparison.labels >= 0
    labels = comparison.labels[labelled]
    sums = sum(
        (calibration_sums(one.confidence[labelled], one.decisions[labelled] == labels) for one in answers),
        np.zeros((3, BINS + 1)),
    )
    sums[:, BINS - 1] += sums[:, BINS]
    return sums[:, :BINS]


def _panel(mark: Mark, name: str, sums: Floats, ece: float | None) -> Panel:
    rows, confidence, hits = sums
    filled = rows > 0
    x, y = 100 * confidence[filled] / rows[filled], 100 * hits[filled] / rows[filled]
    colour = hue(mark)
    figure = blank(SMALL, 372)
    axes = axes_at(figure, left=46, right=SMALL - 14, top=8, bottom=258)
    axes.plot([0, 100], [0, 100], color=MUTED, lw=1, dashes=(4, 3))
    are_many = rows[filled] >= max(FEW * rows.sum(), FEWEST)
    for chosen, alpha in ((are_many, 0.95), (~are_many, 0.35)):
        axes.vlines(x[chosen], x[chosen], y[chosen], color=colour, lw=5, alpha=0.25 * alpha)
        axes.plot(x[chosen], y[chosen], "o", ms=6, color=colour, mew=0, alpha=alpha)
    axes.plot(x[are_many], y[are_many], color=colour, lw=1.4)
    axes.set(xlim=(0, 100), ylim=(0, 103), ylabel="right, %")
    axes.set_xticks([0, 25, 50, 75, 100], [""] * 5)
    axes.set_yticks([0, 25, 50, 75, 100])
    bars = axes_at(figure, left=46, right=SMALL - 14, top=272, bottom=326)
    edges = np.linspace(0, 100, BINS + 1)
    bars.bar(edges[:-1] + 50 / BINS, rows / max(rows.sum(), 1) * 100, width=88 / BINS, color=colour, alpha=0.55, lw=0)
    bars.set(xlim=(0, 100), ylim=(0, None), xlabel="confidence, %", ylabel="rows, %")
    bars.set_xticks([0, 25, 50, 75, 100])
    top = float(rows.max() / max(rows.sum(), 1) * 100)
    bars.set_yticks([0, top], ["0", f"{top:.0f}"])
    bars.grid(axis="y", visible=False)
    note = f"{count(float(rows.sum()))} answers" + (f", ECE {percent(ece)}" if ece is not None else "")
    return Panel(svg(figure, name=f"reliability-{mark.letter}", label=f"Reliability of {name}"), name, note, mark)
