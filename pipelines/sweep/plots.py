"""Pictures of a sweep: accuracy against a setting, and against bytes, every point visible."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from kdcache.base.figures import check_picture, figure_class

MOST_LINES = 8  # that a legend can tell apart
WIDE = 20.0  # from this ratio between largest and smallest value on an axis is logarithmic


@dataclass(frozen=True)
class Dot:
    """One point that was trained: what was swept, accuracy in percent, bytes a row, and how many views it uses."""

    swept: dict[str, Any]
    accuracy: float
    bytes_a_row: float | None = None
    views: int | None = None


def plot_setting(dots: Sequence[Dot], name: str, path: Path) -> None:
    """Accuracy against one setting: a line through the means over seeds for each choice of the other settings, bars
    of one standard deviation where there are several seeds, and every point as a dot."""
    check_picture(path)
    figure = figure_class()(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    values = _ordered([dot.swept.get(name) for dot in dots])
    numeric = all(_is_number(value) for value in values)
    places = {repr(value): float(value) if numeric else float(place) for place, value in enumerate(values)}
    others = [each for each in dots[0].swept if each not in (name, "seed")]
    lines: dict[str, list[Dot]] = {}
    for dot in dots:
        varied = [each for each in others if len({repr(one.swept.get(each)) for one in dots}) > 1]
        lines.setdefault(", ".join(f"{each} {_text(dot.swept.get(each))}" for each in varied), []).append(dot)
    few = len(lines) <= MOST_LINES
    for number, (label, own) in enumerate(lines.items()):
        _draw_line(axes, own, name, places, f"C{number}" if few else "0.6", label if few else "", few=few)
    if not few:
        _draw_line(axes, dots, name, places, "black", "mean of all", few=True, dotted=False)
    _dress(axes, name, values, places, numeric)
    if any(lines) or not few:
        figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)


def _draw_line(
    axes: Any,
    dots: Sequence[Dot],
    name: str,
    places: dict[str, float],
    colour: str,
    label: str,
    *,
    few: bool,
    dotted: bool = True,
) -> None:
    by_value: dict[float, list[float]] = {}
    for dot in dots:
        by_value.setdefault(places[repr(dot.swept.get(name))], []).append(dot.accuracy)
    xs = sorted(by_value)
    means = [fmean(by_value[x]) for x in xs]
    axes.plot(xs, means, "-", color=colour, lw=1.8 if few else 0.8, alpha=1.0 if few else 0.6, label=label or None)
    if few and any(len(each) > 1 for each in by_value.values()):
        spreads = [pstdev(by_value[x]) for x in xs]
        axes.errorbar(xs, means, spreads, fmt="none", color=colour, alpha=0.5, lw=1.2, capsize=4)
    if dotted:
        found = [(places[repr(dot.swept.get(name))], dot.accuracy) for dot in dots]
        axes.scatter(*zip(*found, strict=True), s=18, color=colour, alpha=0.75, zorder=3, edgecolors="none")


def _dress(axes: Any, name: str, values: list[Any], places: dict[str, float], numeric: bool) -> None:
    ticks = [places[repr(value)] for value in values]
    if numeric and min(ticks) > 0 and max(ticks) / min(ticks) >= WIDE:
        axes.set_xscale("log")
    if len(values) <= 10:
        axes.set_xticks(ticks, [_text(value) for value in values])
        axes.set_xticks([], minor=True)
    if not numeric:
        axes.margins(x=0.15)
        if max(map(len, map(_text, values))) > 12:
            axes.tick_params(axis="x", rotation=20)
    axes.set_xlabel(name)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)


def plot_front(dots: Sequence[Dot], path: Path) -> None:
    """Accuracy against bytes, and the points that no other beats in both. Bytes are those of a row, at the point's k'
    and tail; where the number of views differs, of a sample: a row for each view."""
    check_picture(path)
    figure = figure_class()(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    by_sample = len({dot.views for dot in dots}) > 1
    placed = [(_bytes(dot, by_sample), dot.accuracy) for dot in dots]
    axes.scatter(*zip(*placed, strict=True), s=22, color="tab:blue", alpha=0.7, edgecolors="none", label="points")
    best = front(placed)
    axes.plot(*zip(*best, strict=True), "o-", color="tab:red", drawstyle="steps-post", ms=5, label="Pareto front")
    sizes = [size for size, _ in placed]
    if max(sizes) / min(sizes) >= WIDE:
        axes.set_xscale("log")
    middle = (max(sizes) * min(sizes)) ** 0.5 if axes.get_xscale() == "log" else (max(sizes) + min(sizes)) / 2
    for size, accuracy in best:
        dot, left = dots[placed.index((size, accuracy))], size <= middle
        said = ", ".join(f"{key} {_text(value)}" for key, value in dot.swept.items() if key in _TELLING)
        where: dict[str, Any] = {"ha": "left" if left else "right", "rotation": 25 if left else -25}
        axes.annotate(said, (size, accuracy), xytext=(0, 6), textcoords="offset points", fontsize=7, **where)
    axes.set_xlabel("bytes a sample, all its views" if by_sample else "bytes a row")
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.1, y=0.2)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)


_TELLING = ("top_k", "tail", "views", "store")


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (bytes, accuracy) those that no other beats: fewer bytes cost accuracy. Ascending."""
    found: list[tuple[float, float]] = []
    for size, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or accuracy > found[-1][1]:
            found.append((size, accuracy))
    return found


def _bytes(dot: Dot, by_sample: bool) -> float:
    assert dot.bytes_a_row is not None
    return dot.bytes_a_row * ((dot.views or 1) if by_sample else 1)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Different values: numbers ascending, others in the order in which they came."""
    found = list({repr(value): value for value in values}.values())
    return sorted(found) if all(_is_number(value) for value in found) else found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    text = str(value)
    return text.rstrip("/").rpartition("/")[2].removesuffix(".kd") if "/" in text else text
