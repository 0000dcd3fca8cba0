"""Dots: a run each, on accuracy against agreement or against bytes; without labels, agreement by group."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from kdcache.pipelines.compare.comparison import Comparison, Member
from kdcache.pipelines.compare.figures import INK, LARGE, MUTED, RULE, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.marks import Marked
from kdcache.pipelines.compare.page_text import percent

CHI_SQUARE = 5.991  # of two degrees of freedom, 95 %
FEWEST = 3  # members of which an ellipse is drawn
FAR = 3.0  # a teacher further away than so many times the runs' range is named, not drawn to scale
LOG_RATIO = 20.0  # from this ratio between the largest and the smallest value on an axis is logarithmic

ENOUGH = 15.0  # points from a letter to what is next to it
OFFSETS = np.array([(length * np.cos(turn), length * np.sin(turn)) for length in (13.0, 24.0, 36.0)
                    for turn in np.pi / 4 * np.array([1, 3, 7, 5, 0, 4, 2, 6])])  # fmt: skip
"""Of a letter to its group's mean, in points."""

Dots = Sequence[tuple[Marked, Sequence[tuple[float, float]]]]


def value_of(member: Member, name: str) -> float | None:
    """A measure of a member in percent, None where it has none."""
    value = member.measures.get(name)
    return None if value is None or not np.isfinite(value.value) else 100 * value.value


def accuracy_and_agreement(comparison: Comparison, groups: Sequence[Marked]) -> Panel | None:
    """Accuracy against agreement with the teacher, a dot a run, an ellipse a group of three runs or more."""
    dots = _dots(groups, lambda member: (value_of(member, "agreement"), value_of(member, "accuracy")))
    if not dots:
        return None
    figure, axes = _frame("agreement with the teacher, %", "accuracy, %")
    _draw(axes, dots, with_ellipse=True)
    value = comparison.teacher_measures.get("accuracy")
    if value is not None and np.isfinite(value.value):
        _teacher_line(axes, 100 * value.value)
    _letters(axes, dots)
    return Panel(svg(figure, name="accuracy", label="Accuracy against agreement with the teacher, a dot a run"))


def bytes_and_accuracy(comparison: Comparison, groups: Sequence[Marked], measure: str) -> Panel | None:
    """A measure against bytes a row, or a sample where runs learned from different numbers of views; None where all
    members have the same. The line joins the groups that no other beats in both, by their means."""
    known = [member for marked in groups for member in marked.group.members if member.bytes_a_row is not None]
    by_sample = len({member.views for member in known}) > 1

    def size(member: Member) -> float | None:
        views = (member.views or 1) if by_sample else 1
        return None if member.bytes_a_row is None else member.bytes_a_row * views

    dots = _dots(groups, lambda member: (size(member), value_of(member, measure)))
    sizes = [x for _, points in dots for x, _ in points]
    if len(set(sizes)) < 2:
        return None
    what = f"bytes a {'sample' if by_sample else 'row'} of the soft labels"
    figure, axes = _frame(what, f"{measure}, %")
    if min(sizes) > 0 and max(sizes) / min(sizes) >= LOG_RATIO:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.4g}")
        axes.xaxis.set_minor_formatter(lambda x, _: "")
    means = [tuple(np.mean(points, axis=0).tolist()) for _, points in dots]
    axes.plot(*zip(*front(means), strict=True), color=RULE, lw=1.6, drawstyle="steps-post", zorder=1)
    _draw(axes, dots, with_ellipse=False)
    value = comparison.teacher_measures.get(measure) if measure == "accuracy" else None
    if value is not None and np.isfinite(value.value):
        _teacher_line(axes, 100 * value.value)
    _letters(axes, dots)
    return Panel(svg(figure, name="bytes", label=f"{measure} against {what}, a dot a run"))


def front(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The points (size, value) that no other beats, ascending: fewer bytes cost accuracy."""
    best: list[tuple[float, ...]] = []
    for size, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((size, value))
    return best


def agreement_by_group(groups: Sequence[Marked]) -> Panel | None:
    """A line a group: its runs as dots, the mean and its interval."""
    lines = [marked for marked in groups if "agreement" in marked.group.cells]
    if not lines:
        return None
    height = 70 + 26 * len(lines)
    figure = blank(LARGE, height)
    axes = axes_at(figure, left=40, right=LARGE - 14, top=10, bottom=height - 48)
    for row, marked in enumerate(lines):
        spread, colour = marked.group.cells["agreement"], hue(marked.mark)
        values = [value_of(member, "agreement") for member in marked.group.members]
        known = [value for value in values if value is not None]
        axes.plot(known, [row] * len(known), "o", ms=5, color=colour, alpha=0.45, mew=0)
        if spread.low is not None and spread.high is not None:
            axes.plot([100 * spread.low, 100 * spread.high], [row, row], color=colour, lw=1.6)
        axes.plot([100 * spread.mean], [row], marker="|", ms=13, mew=2.2, color=colour)
    axes.set_yticks(range(len(lines)), [marked.mark.letter for marked in lines], color=INK, fontweight="bold")
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("agreement with the teacher, %")
    return Panel(svg(figure, name="agreement", label="Agreement with the teacher, by group"))


def _dots(groups: Sequence[Marked], point: Any) -> Dots:
    dots = []
    for marked in groups:
        points = [(x, y) for x, y in map(point, marked.group.members) if x is not None and y is not None]
        if points:
            dots.append((marked, points))
    return dots


def _frame(x_label: str, y_label: str) -> tuple[Any, Any]:
    figure = blank(LARGE, 318)
    axes = axes_at(figure, left=54, right=LARGE - 14, top=14, bottom=270)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _draw(axes: Any, dots: Dots, *, with_ellipse: bool) -> None:
    for marked, points in dots:
        x, y = np.array(points).T
        colour = hue(marked.mark)
        axes.plot(x, y, marked.mark.marker, ms=6.5, color=colour, mew=0, alpha=0.85)
        if with_ellipse and len(points) >= FEWEST:
            outline = ellipse(points)
            axes.fill(*outline, facecolor=colour, alpha=0.10, edgecolor="none")
            axes.plot(*outline, color=colour, lw=1)
    axes.margins(0.12)


def _letters(axes: Any, dots: Dots) -> None:
    """A letter beside each group's mean, where it is furthest from dots and from other letters. The axes' limits must
    stand."""
    to_points = axes.transData.transform
    taken = [*to_points(np.concatenate([np.array(points) for _, points in dots]))]
    for marked, points in dots:
        mean = np.mean(points, axis=0)
        places = to_points(mean) + OFFSETS
        nearest = np.linalg.norm(places[:, None] - np.array(taken)[None], axis=2).min(axis=1)
        chosen = int(np.argmax(np.minimum(nearest, ENOUGH) - 0.01 * np.arange(len(OFFSETS))))
        taken.append(places[chosen])
        axes.annotate(
            marked.mark.letter, mean, xytext=tuple(OFFSETS[chosen]), textcoords="offset points", color=hue(marked.mark),
            fontweight="bold", fontsize=13, ha="center", va="center", annotation_clip=False,
        )  # fmt: skip


def ellipse(points: Sequence[tuple[float, float]]) -> Any:
    """[2, 73] outline that holds 95 % of a normal distribution of the points' mean and covariance."""
    values, vectors = np.linalg.eigh(np.cov(np.array(points).T))
    angles = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    axes = vectors * np.sqrt(np.maximum(values, 0))
    return np.mean(points, axis=0)[:, None] + sqrt(CHI_SQUARE) * (axes @ circle)


def _teacher_line(axes: Any, value: float) -> None:
    """The teacher's value as a line; where it is far from the runs, words at the edge tell where it lies."""
    low, high = axes.get_ylim()
    middle, reach = (low + high) / 2, (high - low) / 2
    word = f"teacher {percent(value / 100)}"
    if abs(value - middle) <= FAR * reach:
        axes.axhline(value, color=INK, lw=1.2, dashes=(4, 3))
        axes.set_ylim(min(low, value - 0.12 * reach), max(high, value + 0.24 * reach))
        place, vertical = value, "bottom"
    else:
        axes.set_ylim(low, high + 0.2 * reach if value > middle else high)
        word += " ↑" if value > middle else " ↓"
        place, vertical = (axes.get_ylim()[1], "top") if value > middle else (low, "bottom")
    axes.annotate(
        word, (1, place), xycoords=("axes fraction", "data"), xytext=(-2, 3 if vertical == "bottom" else -3),
        textcoords="offset points", ha="right", va=vertical, color=INK if vertical == "bottom" else MUTED,
    )  # fmt: skip
    axes.spines["bottom"].set_color(RULE)
