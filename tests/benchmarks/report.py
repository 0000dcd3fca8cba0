"""docs/performance.md and its picture from the figures of one run."""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks import sizes_picture
from tests.benchmarks.harness import Figure

BEGIN, END = "<!-- figures: made by make bench -->", "<!-- end of figures -->"


def shown(value: float) -> str:
    """Four digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def line_of(figure: Figure) -> str:
    """A figure as one line for the terminal: verdict, target, measured."""
    target = "" if figure.target is None else f", target {shown(figure.target)} or {figure.better}"
    spread = "" if figure.low == figure.high else f" ({shown(figure.low)} to {shown(figure.high)})"
    setting = f" [{figure.setting}]" if figure.setting else ""
    return f"{figure.verdict:8} {figure.name}{setting}: {shown(figure.measured)}{spread} {figure.unit}{target}"


def line_of_conditions(conditions: dict[str, Any]) -> str:
    """Device, versions, command and time."""
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    return f"{conditions['device']}; {versions}. By `{conditions['command']}`, {conditions['minutes']:.0f} minutes."


def markdown(groups: dict[str, list[Figure]], conditions: dict[str, Any]) -> str:
    """A table for each benchmark, and the conditions under which it ran."""
    lines = []
    for group, figures in groups.items():
        lines += [f"### {group}", "", "| figure | setting | target | measured | 95 % interval | n | verdict |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for figure in figures:
            bound = "≤" if figure.better == "lower" else "≥"
            target = "" if figure.target is None else f"{bound} {shown(figure.target)}"
            spread = "" if figure.low == figure.high else f"{shown(figure.low)} to {shown(figure.high)}"
            cells = (figure.name, figure.setting, target, f"{shown(figure.measured)} {figure.unit}", spread)
            lines.append("| " + " | ".join((*cells, str(figure.trials), figure.verdict)) + " |")
        lines.append("")
        lines += [line for figure in figures for line in _table(figure)]
    lines.append(line_of_conditions(conditions))
    return "\n".join(lines)


def _table(figure: Figure) -> list[str]:
    """What a figure brings along for the page: `details["table"]` with title, columns and rows."""
    if (table := figure.details.get("table")) is None:
        return []
    lines = [f"{table['title']}:", "", "| " + " | ".join(table["columns"]) + " |", "|---" * len(table["columns"]) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in table["rows"]), ""]


def write(groups: dict[str, list[Figure]], conditions: dict[str, Any], page: Path) -> None:
    """Replace the page's tables, keep what people wrote around them; JSON and a picture go beside it."""
    record = {"conditions": conditions, "figures": {g: [f.model_dump() for f in each] for g, each in groups.items()}}
    figures = page.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "performance.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    text = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{markdown(groups, conditions)}\n\n{END}{rest.partition(END)[2]}")
    plot(groups, figures / "performance.png")
    sizes_picture.plot([figure for each in groups.values() for figure in each], figures / "bytes_a_row.png")


def plot(groups: dict[str, list[Figure]], path: Path) -> None:
    """Every figure with a target as a fraction of it: left of the line is better, whichever way the figure runs."""
    from matplotlib.figure import Figure as Canvas

    judged = [figure for figures in groups.values() for figure in figures if figure.target]
    if not judged:
        return
    canvas = Canvas(figsize=(11, 0.8 + 0.32 * len(judged)), layout="constrained")
    axes = canvas.subplots()
    for row, figure in enumerate(reversed(judged)):
        assert figure.target is not None
        spread = sorted(_worse(figure, value) for value in (figure.low, figure.measured, figure.high))
        colour = "tab:red" if figure.missed else "tab:green"
        axes.plot([spread[0], spread[2]], [row, row], color=colour, lw=3, alpha=0.4)
        axes.plot(_worse(figure, figure.measured), row, "o", color=colour)
    axes.axvline(1.0, color="0.4", lw=1)
    axes.set_xscale("log")
    labels = [f"{figure.name} {figure.setting}".strip() for figure in reversed(judged)]
    axes.set_yticks(range(len(judged)), labels, fontsize=8)
    axes.set_xlabel("by target; right of 1 is worse")
    axes.grid(axis="x", which="both", alpha=0.2)
    canvas.savefig(path, dpi=120)


def _worse(figure: Figure, value: float) -> float:
    assert figure.target is not None
    return value / figure.target if figure.better == "lower" else figure.target / value
