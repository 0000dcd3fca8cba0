"""Training curves: a group's mean over its runs by epoch, and a band from its lowest run to its highest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcache.pipelines.compare.figures import LARGE, POINTS, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.marks import Marked

MOST_POINTS = 200  # of a line; more epochs are thinned out evenly
CURVES = (("loss", "training loss", 1.0), ("accuracy", "accuracy, %", 100.0), ("agreement", "agreement, %", 100.0))

LETTER_HEIGHT = 13.0  # points

Line = tuple[Marked, list[tuple[int, float, float, float]]]
"""A group, and its epochs from 1 with the mean, the lowest and the highest of its runs."""


def curve_panels(groups: Sequence[Marked]) -> tuple[Panel, ...]:
    """Loss, and accuracy by epoch (agreement where no line has accuracy); an epoch without a value is left out."""
    panels: list[Panel] = []
    for key, label, factor in CURVES:
        if key == "agreement" and any(panel.title.startswith("accuracy") for panel in panels):
            continue
        lines = [(marked, points) for marked in groups if (points := _points(marked, key))]
        if lines:
            panels.append(_panel(lines, key, label, factor))
    return tuple(panels)


def _points(marked: Marked, key: str) -> list[tuple[int, float, float, float]]:
    """Epoch from 1, mean, lowest and highest of the runs that have a value there."""
    values: dict[int, list[float]] = {}
    for member in marked.group.members:
        for line in member.curves:
            if (value := _number(line, key)) is not None and (epoch := _number(line, "epoch")) is not None:
                values.setdefault(int(epoch) + 1, []).append(value)
    points = [(epoch, float(np.mean(some)), min(some), max(some)) for epoch, some in sorted(values.items())]
    if len(points) > MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(int))
        points = [points[index] for index in chosen]
    return points


def _number(line: Mapping[str, Any], key: str) -> float | None:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _panel(lines: Sequence[Line], key: str, label: str, factor: float) -> Panel:
    figure = blank(LARGE, 300)
    axes = axes_at(figure, left=54, right=LARGE - 28, top=14, bottom=252)
    for marked, points in lines:
        epochs, mean, low, high = np.array(points).T
        colour = hue(marked.mark)
        if len(marked.group.members) > 1:
            axes.fill_between(epochs, factor * low, factor * high, color=colour, alpha=0.13, lw=0)
        axes.plot(epochs, factor * mean, color=colour, linestyle=marked.mark.dash, marker="o" if len(mean) == 1 else "")
    _name_ends(axes, lines, factor)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return Panel(svg(figure, name=f"curve-{key}", label=f"{label} by epoch"), label)


def _name_ends(axes: Any, lines: Sequence[Line], factor: float) -> None:
    """A letter at the end of each line; letters are moved apart where lines end together."""
    low, high = axes.get_ylim()
    a_point = (high - low) / (axes.get_position().height * axes.figure.get_size_inches()[1] * POINTS)
    ends = sorted((factor * points[-1][1], points[-1][0], number) for number, (_, points) in enumerate(lines))
    places = spaced([end[0] / a_point for end in ends], LETTER_HEIGHT)
    for (value, epoch, number), place in zip(ends, places, strict=True):
        mark = lines[number][0].mark
        axes.annotate(
            mark.letter, (epoch, value), xytext=(7, place - value / a_point), textcoords="offset points", va="center",
            color=hue(mark), fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def spaced(values: Sequence[float], distance: float) -> list[float]:
    """Ascending values, moved so that neighbours lie at least so far apart: each cluster around its own mean."""
    clusters: list[list[float]] = []
    for value in values:
        clusters.append([value])
        while len(clusters) > 1 and _low(clusters[-1], distance) - _high(clusters[-2], distance) < distance:
            last = clusters.pop()
            clusters[-1] += last
    return [_low(cluster, distance) + distance * place for cluster in clusters for place in range(len(cluster))]


def _low(cluster: Sequence[float], distance: float) -> float:
    return sum(cluster) / len(cluster) - distance * (len(cluster) - 1) / 2


def _high(cluster: Sequence[float], distance: float) -> float:
    return _low(cluster, distance) + distance * (len(cluster) - 1)
