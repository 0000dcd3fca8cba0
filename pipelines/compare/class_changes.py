"""Change by class: how the share of rows that are right in each class differs from the baseline's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdcache.pipelines.compare.comparison import Member
from kdcache.pipelines.compare.figures import INK, MUTED, SMALL, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.grouping import difference
from kdcache.pipelines.compare.marks import Marked, Truth
from kdcache.pipelines.compare.page_text import class_name, cut

SHOWN = 20  # worst classes, and as many of the best
ROW = 17.0  # points a class
LETTER = 6.2  # points of a name's letter, about
GUTTER = 170.0  # points for names at most

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changes:
    """Classes in the order of their change, worst first; halves: of 95 % intervals over runs, NaN for one run."""

    classes: npt.NDArray[np.int64]
    means: Floats
    halves: Floats


def changes(group: Marked, baseline: Marked, truth: Truth) -> Changes:
    """Of a group's recalls to the baseline's, paired by seed where they share seeds, as in the table of measures."""
    own, base = (np.array([recalls(member, truth) for member in each.group.members]) for each in (group, baseline))
    spreads = [
        difference(own[:, c].tolist(), base[:, c].tolist(), group.group, baseline.group) for c in range(truth.count)
    ]
    means = np.array([np.nan if spread is None else spread.mean for spread in spreads])
    halves = np.array([np.nan if s is None or s.high is None else s.high - s.mean for s in spreads])
    known = np.flatnonzero(np.isfinite(means))
    order = known[np.argsort(means[known], kind="stable")]
    return Changes(order, means[order], halves[order])


def recalls(member: Member, truth: Truth) -> Floats:
    """[C] share of a class's rows that the member decides for it, NaN for a class without rows."""
    known = truth.classes >= 0
    classes = truth.classes[known]
    hits = member.answers.decisions[known] == classes
    rows = np.bincount(classes, minlength=truth.count).astype(np.float64)
    return np.bincount(classes, weights=hits, minlength=truth.count) / np.where(rows > 0, rows, np.nan)


def class_panels(groups: Sequence[Marked], truth: Truth, names: Sequence[str]) -> tuple[Panel, ...]:
    """A panel for each group but the baseline."""
    baseline = next((marked for marked in groups if marked.is_baseline), None)
    if baseline is None or not truth.count:
        return ()
    return tuple(_panel(marked, changes(marked, baseline, truth), names) for marked in groups if not marked.is_baseline)


def _panel(marked: Marked, change: Changes, names: Sequence[str]) -> Panel:
    total = len(change.classes)
    is_cut = total > 2 * SHOWN
    shown = np.r_[0:SHOWN, total - SHOWN : total] if is_cut else np.arange(total)
    rows = np.arange(len(shown)) + (np.arange(len(shown)) >= SHOWN if is_cut else 0)
    means, halves = 100 * change.means[shown], 100 * change.halves[shown]
    height = 56 + ROW * (len(shown) + is_cut)
    figure = blank(SMALL, height)
    labels = [cut(class_name(names, int(number)), 24) for number in change.classes[shown]]
    gutter = min(GUTTER, 16 + LETTER * max(map(len, [*labels, "1,000 classes between" if is_cut else ""])))
    axes = axes_at(figure, left=gutter, right=SMALL - 12, top=8, bottom=height - 48)
    colour = hue(marked.mark)
    axes.axvline(0, color=MUTED, lw=1)
    axes.hlines(rows, 0, means, color=colour, lw=2, alpha=0.35)
    if np.isfinite(halves).any():
        axes.hlines(rows, means - halves, means + halves, color=colour, lw=1.1)
    axes.plot(means, rows, "o", ms=5.5, color=colour, mew=0)
    if is_cut:
        axes.text(-0.03, SHOWN, f"{total - 2 * SHOWN:,} classes between", transform=axes.get_yaxis_transform(),
                  ha="right", va="center", color=MUTED, fontsize=11)  # fmt: skip
    axes.set_yticks(rows, labels, color=INK, fontsize=11)
    axes.set_ylim(rows[-1] + 0.7, -0.7)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, -104), min(high, 104))
    axes.set_xlabel("change, percentage points")
    worst = cut(class_name(names, int(change.classes[0])), 24) if total else ""
    is_loss = bool(total) and change.means[0] < 0
    note = f"most lost: {worst}" if is_loss else "no class loses"
    label = f"Change by class of {marked.group.name} to the baseline"
    return Panel(svg(figure, name=f"classes-{marked.mark.letter}", label=label), marked.group.name, note, marked.mark)
