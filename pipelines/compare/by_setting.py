"""Accuracy against a setting that groups differ in: dots are runs, lines join those that differ in a number alone."""

from collections.abc import Sequence
from typing import Any

from kdcache.pipelines.compare.figures import LARGE, RULE, Panel, axes_at, blank, hue, svg
from kdcache.pipelines.compare.marks import Marked
from kdcache.pipelines.compare.page_text import cut

LOG_RATIO = 20.0  # from this ratio between the largest and the smallest value on an axis is logarithmic
MOST_VALUES = 12  # of a setting that is named word by word


def setting_panels(groups: Sequence[Marked], measure: str) -> tuple[Panel, ...]:
    """A panel for each setting in which groups that have the measure differ; in percent."""
    drawn = [marked for marked in groups if measure in marked.group.cells and marked.group.settings]
    names = sorted({name for marked in drawn for name in marked.group.settings})
    panels = []
    for name in names:
        values = {repr(marked.group.settings.get(name)): marked.group.settings.get(name) for marked in drawn}
        are_numbers = all(_is_number(value) for value in values.values())
        if len(values) > 1 and (are_numbers or len(values) <= MOST_VALUES):
            panels.append(_panel(drawn, name, measure, list(values.values()), are_numbers=are_numbers))
    return tuple(panels)


def _panel(groups: Sequence[Marked], name: str, measure: str, values: list[Any], *, are_numbers: bool) -> Panel:
    values = sorted(values) if are_numbers else values
    places = {repr(value): float(value) if are_numbers else float(rank) for rank, value in enumerate(values)}
    figure = blank(LARGE, 300)
    axes = axes_at(figure, left=54, right=LARGE - 14, top=14, bottom=252)
    lines: dict[str, list[Marked]] = {}
    for marked in groups:
        others = {key: value for key, value in marked.group.settings.items() if key != name}
        lines.setdefault(repr(sorted(others.items())), []).append(marked)
    for line in lines.values() if are_numbers else ():
        points = sorted((places[repr(each.group.settings.get(name))], 100 * _mean(each, measure)) for each in line)
        axes.plot(*zip(*points, strict=True), "-", color=RULE, lw=1.6, zorder=1)
    for marked in groups:
        x = places[repr(marked.group.settings.get(name))]
        known = [100 * each.measures[measure].value for each in marked.group.members if measure in each.measures]
        axes.plot([x] * len(known), known, "o", ms=4, color=hue(marked.mark), alpha=0.45, mew=0, zorder=2)
        axes.plot([x], [100 * _mean(marked, measure)], marked.mark.marker, ms=7, color=hue(marked.mark), zorder=3)
    if are_numbers and min(values) > 0 and max(values) / min(values) >= LOG_RATIO:
        axes.set_xscale("log")
    if len(values) <= MOST_VALUES:
        axes.set_xticks(list(places.values()), [cut(_text(value), 14) for value in values])
        axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
    axes.set_xlabel(cut(name, 60))
    axes.set_ylabel(f"{measure}, %")
    return Panel(svg(figure, name=f"setting-{name}", label=f"{measure} against {name}"), name)


def _mean(marked: Marked, measure: str) -> float:
    return marked.group.cells[measure].mean


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
