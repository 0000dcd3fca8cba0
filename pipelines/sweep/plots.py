"""Pictures of a sweep: accuracy against a setting, and against bytes, every point visible."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from kdcache.base.figures import check_picture, figure_class, save_picture

MOST_LINES = 8  # that a legend can tell apart
LOG_RATIO = 20.0  # from this ratio between largest and smallest value on an axis is logarithmic


@dataclass(frozen=True)
class Dot:
    """One trained point: its swept settings, accuracy in percent, bytes a row, and the count of views that it uses."""

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
    are_numbers = all(_is_number(value) for value in values)
    x_by_value = {repr(value): float(value) if are_numbers else float(rank) for rank, value in enumerate(values)}
    other_names = [setting for setting in dots[0].swept if setting not in (name, "seed")]
    varied_names = [setting for setting in other_names if len({repr(dot.swept.get(setting)) for dot in dots}) > 1]
    lines: dict[str, list[Dot]] = {}
    for dot in dots:
        label = ", ".join(f"{setting} {_text(dot.swept.get(setting))}" for setting in varied_names)
        lines.setdefault(label, []).append(dot)
    few = len(lines) <= MOST_LINES
    for number, (label, line_dots) in enumerate(lines.items()):
        colour = f"C{number}" if few else "0.6"
        _draw_line(axes, line_dots, name, x_by_value, colour, label if few else "", few=few)
    if not few:
        _draw_line(axes, dots, name, x_by_value, "black", "mean of all", few=True, with_dots=False)
    _dress(axes, name, values, x_by_value, are_numbers)
    if any(lines) or not few:
        figure.legend(fontsize=8, loc="outside right upper")
    save_picture(figure, path)


def _draw_line(
    axes: Any,
    dots: Sequence[Dot],
    name: str,
    x_by_value: dict[str, float],
    colour: str,
    label: str,
    *,
    few: bool,
    with_dots: bool = True,
) -> None:
    accuracies_by_x: dict[float, list[float]] = {}
    for dot in dots:
        accuracies_by_x.setdefault(x_by_value[repr(dot.swept.get(name))], []).append(dot.accuracy)
    xs = sorted(accuracies_by_x)
    means = [fmean(accuracies_by_x[x]) for x in xs]
    axes.plot(xs, means, "-", color=colour, lw=1.8 if few else 0.8, alpha=1.0 if few else 0.6, label=label or None)
    if few and any(len(accuracies) > 1 for accuracies in accuracies_by_x.values()):
        spreads = [pstdev(accuracies_by_x[x]) for x in xs]
        axes.errorbar(xs, means, spreads, fmt="none", color=colour, alpha=0.5, lw=1.2, capsize=4)
    if with_dots:
        points = [(x_by_value[repr(dot.swept.get(name))], dot.accuracy) for dot in dots]
        axes.scatter(*zip(*points, strict=True), s=18, color=colour, alpha=0.75, zorder=3, edgecolors="none")


def _dress(axes: Any, name: str, values: list[Any], x_by_value: dict[str, float], are_numbers: bool) -> None:
    ticks = [x_by_value[repr(value)] for value in values]
    if are_numbers and min(ticks) > 0 and max(ticks) / min(ticks) >= LOG_RATIO:
        axes.set_xscale("log")
    if len(values) <= 10:
        axes.set_xticks(ticks, [_text(value) for value in values])
        axes.set_xticks([], minor=True)
    if not are_numbers:
        axes.margins(x=0.15)
        if max(map(len, map(_text, values))) > 12:
            axes.tick_params(axis="x", rotation=20)
    axes.set_xlabel(name)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.25)


def plot_front(dots: Sequence[Dot], path: Path) -> None:
    """Accuracy against bytes, and the points that no other point beats in both. Bytes are those of a row, at the
    point's k' and tail; where the number of views differs, those of a sample, which has a row for each view."""
    check_picture(path)
    figure = figure_class()(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    by_sample = len({dot.views for dot in dots}) > 1
    points = [(_bytes(dot, by_sample), dot.accuracy) for dot in dots]
    axes.scatter(*zip(*points, strict=True), s=22, color="tab:blue", alpha=0.7, edgecolors="none", label="points")
    front_points = front(points)
    axes.plot(
        *zip(*front_points, strict=True), "o-", color="tab:red", drawstyle="steps-post", ms=5, label="Pareto front"
    )
    sizes = [size for size, _ in points]
    if max(sizes) / min(sizes) >= LOG_RATIO:
        axes.set_xscale("log")
    middle = (max(sizes) * min(sizes)) ** 0.5 if axes.get_xscale() == "log" else (max(sizes) + min(sizes)) / 2
    for size, accuracy in front_points:
        dot, on_left = dots[points.index((size, accuracy))], size <= middle
        label = ", ".join(f"{key} {_text(value)}" for key, value in dot.swept.items() if key in _LABEL_SETTINGS)
        alignment: dict[str, Any] = {"ha": "left" if on_left else "right", "rotation": 25 if on_left else -25}
        axes.annotate(label, (size, accuracy), xytext=(0, 6), textcoords="offset points", fontsize=7, **alignment)
    axes.set_xlabel("bytes a sample, all its views" if by_sample else "bytes a row")
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.1, y=0.2)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    save_picture(figure, path)


_LABEL_SETTINGS = ("top_k", "tail", "views", "store")


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (bytes, accuracy) that no other beats, ascending: fewer bytes cost accuracy."""
    front_points: list[tuple[float, float]] = []
    for size, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front_points or accuracy > front_points[-1][1]:
            front_points.append((size, accuracy))
    return front_points


def _bytes(dot: Dot, by_sample: bool) -> float:
    assert dot.bytes_a_row is not None
    return dot.bytes_a_row * ((dot.views or 1) if by_sample else 1)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Distinct values: numbers ascending, others in the order in which they came."""
    distinct_values = list({repr(value): value for value in values}.values())
    return sorted(distinct_values) if all(_is_number(value) for value in distinct_values) else distinct_values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "+".join(map(_text, value))
    text = str(value)
    return text.rstrip("/").rpartition("/")[2].removesuffix(".kd") if "/" in text else text
