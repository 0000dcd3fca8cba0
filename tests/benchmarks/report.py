"""docs/performance.md and its pictures from figures, each group of which was measured by one run."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from tests.benchmarks import sizes_picture
from tests.benchmarks.harness import Figure, Verdict
from tests.benchmarks.reasons import reason_of

Groups = dict[str, list[Figure]]  # by heading
Conditions = dict[str, Any]  # of one run: device, versions, command, minutes

# colour and marker, so that verdicts differ without colours too
STYLES = {"met": ("#0072b2", "o"), "open": ("#e69f00", "D"), "missed": ("#b2182b", "X")}
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


def line_of_counts(groups: Groups) -> str:
    """The number of targets of each verdict."""
    counts = Counter(figure.verdict for figures in groups.values() for figure in figures)
    each = ", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if verdict != "reported")
    return f"{counts.total() - counts['reported']} targets: {each}"


def markdown(groups: Groups, conditions: dict[str, Conditions]) -> str:
    """A table for each benchmark, why targets are not met, and the conditions under which the groups ran."""
    lines = [f"{line_of_counts(groups)}.", ""]
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
        lines += _reasons(figures)
        lines += [line for figure in figures for line in _table(figure)]
    runs = _runs(conditions)
    for run in runs:
        names = f"{'; '.join(run['groups'])}: " if len(runs) > 1 else ""
        lines += [f"{names}{line_of_conditions(run)}", ""]
    return "\n".join(lines).rstrip()


def _runs(conditions: dict[str, Conditions]) -> list[Conditions]:
    """The conditions of each run, with the groups that it measured."""
    runs: list[Conditions] = []
    for group, run in conditions.items():
        same = [each for each in runs if {**run, "groups": each["groups"]} == each]
        if same:
            same[0]["groups"].append(group)
        else:
            runs.append({"groups": [group], **run})
    return runs


def _reasons(figures: list[Figure]) -> list[str]:
    """A line for each figure whose target is missed or open."""
    lines = []
    for figure in figures:
        if figure.verdict in ("missed", "open"):
            setting = f", {figure.setting}" if figure.setting else ""
            lines.append(
                f"- **{figure.verdict}**, {figure.name}{setting}: {reason_of(figure) or 'nobody has said why'}."
            )
    return [*lines, ""] if lines else []


def _table(figure: Figure) -> list[str]:
    """What a figure brings along for the page: `details["table"]` with title, columns and rows."""
    if (table := figure.details.get("table")) is None:
        return []
    lines = [f"{table['title']}:", "", "| " + " | ".join(table["columns"]) + " |", "|---" * len(table["columns"]) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in table["rows"]), ""]


def record_of(page: Path) -> Path:
    """The JSON beside a page, from which the page follows."""
    return page.parent / "figures" / "performance.json"


def read(page: Path) -> tuple[Groups, dict[str, Conditions]]:
    """Figures and conditions of each group from the JSON beside a page."""
    record = json.loads(record_of(page).read_text())
    groups = {group: [Figure.model_validate(each) for each in figures] for group, figures in record["figures"].items()}
    runs = {name: {key: run[key] for key in run if key != "groups"} for run in record["runs"] for name in run["groups"]}
    return groups, {group: runs[group] for group in groups}


def write(groups: Groups, conditions: dict[str, Conditions], page: Path) -> None:
    """Replace the page's tables, keep what people wrote around them; JSON and pictures go beside it."""
    record = {"runs": _runs(conditions), "figures": {g: [f.model_dump() for f in each] for g, each in groups.items()}}
    place = record_of(page)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    text = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{markdown(groups, conditions)}\n\n{END}{rest.partition(END)[2]}")
    plot(groups, place.with_name("performance.png"))
    sizes_picture.plot([figure for each in groups.values() for figure in each], place.with_name("bytes_a_row.png"))


def plot(groups: Groups, path: Path) -> None:
    """Every figure with a target as a fraction of it: left of the line is better, whichever way the figure runs."""
    from matplotlib.figure import Figure as Canvas

    judged = [figure for figures in groups.values() for figure in figures if figure.target]
    if not judged:
        return
    canvas = Canvas(figsize=(11, 1.1 + 0.32 * len(judged)), layout="constrained")
    axes = canvas.subplots()
    for row, figure in enumerate(reversed(judged)):
        spread = sorted(_worse(figure, value) for value in (figure.low, figure.measured, figure.high))
        colour, marker = STYLES[figure.verdict]
        axes.plot([spread[0], spread[2]], [row, row], color=colour, lw=3, alpha=0.5)
        axes.plot(_worse(figure, figure.measured), row, marker, color=colour, ms=5)
    for verdict, (colour, marker) in STYLES.items():
        axes.plot([], [], marker, color=colour, ms=5, label=verdict)
    axes.axvline(1.0, color="0.4", lw=1)
    axes.set_xscale("log")
    labels = [f"{figure.name} {figure.setting}".strip() for figure in reversed(judged)]
    axes.set_yticks(range(len(judged)), labels, fontsize=8)
    axes.margins(y=0.02)
    axes.set_xlabel("by target; right of 1 is worse")
    axes.grid(axis="x", which="both", alpha=0.2)
    canvas.legend(loc="outside upper right", ncols=len(STYLES), frameon=False)
    canvas.savefig(path, dpi=120)


def _worse(figure: Figure, value: float) -> float:
    assert figure.target is not None
    return value / figure.target if figure.better == "lower" else figure.target / value
