"""Exaggeration: the student's logit of the teacher's top class against the teacher's own, row by row."""

from collections.abc import Sequence

import numpy as np

from kdcache.measures.deviation import line
from kdcache.measures.facts import Floats
from kdcache.pipelines.compare.comparison import Comparison
from kdcache.pipelines.compare.figures import INK, MUTED, SMALL, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.marks import Marked

CELLS = 24  # hexagons along an axis
STEPS = 6  # of darkness


def exaggeration_panels(comparison: Comparison, groups: Sequence[Marked]) -> tuple[Panel, ...]:
    """A panel a group, all on the same axes; rows of all its runs together."""
    teacher = np.asarray(comparison.teacher.at_teacher, np.float64)
    if not len(teacher) or not groups:
        return ()
    everything: list[Floats] = [
        teacher,
        *(answers.at_teacher.astype(np.float64) for marked in groups for answers in marked.answers),
    ]
    low = min(float(np.percentile(values, 0.1)) for values in everything)
    high = max(float(np.percentile(values, 99.9)) for values in everything)
    room = 0.04 * max(high - low, 1.0)
    return tuple(_panel(marked, teacher, (low - room, high + room)) for marked in groups)


def _panel(marked: Marked, teacher: Floats, limits: tuple[float, float]) -> Panel:
    x = np.tile(teacher, len(marked.answers))
    y = np.concatenate([answers.at_teacher for answers in marked.answers]).astype(np.float64)
    figure = blank(SMALL, 346)
    axes = axes_at(figure, left=46, right=SMALL - 14, top=8, bottom=300)
    axes.grid(visible=False)
    cells = axes.hexbin(x, y, gridsize=(CELLS, CELLS * 4 // 7), extent=(*limits, *limits), mincnt=1, linewidths=0)
    counts = np.asarray(cells.get_array(), np.float64)
    cells.set_array(None)
    shares = np.log1p(counts) / np.log1p(counts.max(initial=1))
    darkness = np.minimum(np.ceil(STEPS * shares), STEPS) / STEPS
    cells.set_facecolor([(hue(marked.mark), round(0.08 + 0.87 * step, 2)) for step in darkness])
    cells.set_edgecolor("none")
    axes.plot(limits, limits, color=MUTED, lw=1, dashes=(4, 3))
    moments = np.array([x.sum(), y.sum(), (x * x).sum(), (x * y).sum()])
    slope, intercept = line({"rows": len(x), "moments": moments})
    note = ""
    if np.isfinite(slope):
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, intercept + slope * ends, color=INK, lw=1.8)
        note = f"slope {slope:.3f}"
    axes.set(xlim=limits, ylim=limits, xlabel="teacher's logit", ylabel="student's logit")
    axes.locator_params(nbins=6, integer=True)
    label = f"Logit of the teacher's top class by {marked.group.name} against the teacher's"
    name = f"exaggeration-{marked.mark.letter}"
    return Panel(svg(figure, name=name, label=label), marked.group.name, note, marked.mark)
