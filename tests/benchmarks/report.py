"""docs/performance.md, a page of tables for each benchmark beneath it, and their pictures, from docs/figures.

Each group of figures was measured by one run. Of performance.md only what stands between marks is written; the pages
of tables are written whole.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from tests.benchmarks import sizes_picture
from tests.benchmarks.answers import Groups, Results, answered, summary
from tests.benchmarks.blocks import marks, replaced, table
from tests.benchmarks.groups import BENCHMARKS, INTRODUCTIONS, page_of
from tests.benchmarks.harness import Figure, Verdict
from tests.benchmarks.reasons import reason_of
from tests.benchmarks.targets_picture import plot
from tests.benchmarks.whole_store_page import whole_store_page

Conditions = dict[str, Any]  # of one run: device, versions, command, minutes

BLOCKS = {name: marks(name, "make bench") for name in ("answers", "targets", "tables", "conditions")}
NO_REASON = "The reason is not known."
OTHERS = {  # JSON -> link to the page of what other commands measure
    "whole_store": "[Whole-store commands](performance/whole_store.md)",
    "sweep_total_time": "[Sweeps](sweeps.md)",
}


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


def counts_of(figures: list[Figure]) -> str:
    """The number of targets of each verdict."""
    counts = Counter(figure.verdict for figure in figures)
    each = ", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict) if verdict != "reported")
    return f"{counts.total() - counts['reported']} targets: {each}"


def line_of_counts(groups: Groups) -> str:
    """The number of targets of each verdict, over all groups."""
    return counts_of([figure for figures in groups.values() for figure in figures])


def group_page(heading: str, figures: list[Figure], conditions: Conditions) -> str:
    """The page of a group: all of its figures, the reasons of missed and open targets, and further tables."""
    introduction = INTRODUCTIONS.get(page_of(heading), "")
    judged = f"{counts_of(figures)}. [Performance](../performance.md) says when a target is met, open or missed."
    named = (
        "A name with a slash is a ratio of the first by the second. n counts the rounds; no interval: nothing varies."
    )
    lines = [f"# {heading}", "", "<!-- made by make bench -->", ""]
    lines += [introduction, ""] if introduction else []
    columns = ("figure", "setting", "target", "measured", "95 % interval", "n", "verdict")
    lines += [f"{judged} {named}", "", table(columns, [_cells(figure) for figure in figures]), ""]
    unmet = [figure for figure in figures if figure.verdict in ("missed", "open")]
    lines += [f"- **{each.verdict}**, {titled(each)}: {reason_of(each) or NO_REASON}" for each in unmet]
    lines += [""] if unmet else []
    lines += [line for figure in figures for line in _table(figure)]
    return "\n".join([*lines, line_of_conditions(conditions), ""])


def titled(figure: Figure) -> str:
    """Name and setting."""
    return f"{figure.name}, {figure.setting}" if figure.setting else figure.name


def _cells(figure: Figure) -> list[str]:
    spread = "" if figure.low == figure.high else f"{shown(figure.low)} to {shown(figure.high)}"
    measured = f"{shown(figure.measured)} {unit_of(figure)}".strip()
    return [figure.name, figure.setting, bound(figure), measured, spread, str(figure.trials), figure.verdict]


def unit_of(figure: Figure) -> str:
    """The unit; a ratio has none."""
    return "" if figure.unit == "ratio" else figure.unit


def bound(figure: Figure) -> str:
    """The target with its sign; nothing where there is none."""
    return "" if figure.target is None else f"{'≤' if figure.better == 'lower' else '≥'} {shown(figure.target)}"


def _table(figure: Figure) -> list[str]:
    """The table that a figure brings along for the page: `details["table"]` with title, columns and rows."""
    if (more := figure.details.get("table")) is None:
        return []
    return [f"{more['title']}:", "", table(more["columns"], more["rows"]), ""]


def blocks_of(groups: Groups, conditions: dict[str, Conditions], folder: Path) -> dict[str, str]:
    """The contents of performance.md's blocks, from the groups and the other JSONs of a folder."""
    links = {name: f"[table](performance/{name}.md)" for name in (*BENCHMARKS, "whole_store")}
    links["sweeps"] = "[page](sweeps.md)"
    results = Results(groups, folder)
    rows = [[answer.subject, answer.ours, answer.beside, links.get(answer.page, "")] for answer in answered(results)]
    unmet = [
        [figure.verdict, titled(figure), bound(figure), _measured(figure), reason_of(figure) or NO_REASON]
        for verdict in ("missed", "open")
        for figures in groups.values()
        for figure in figures
        if figure.verdict == verdict
    ]
    pages = [f"- [{heading}](performance/{page_of(heading)}.md): {counts_of(each)}" for heading, each in groups.items()]
    targets = table(("verdict", "figure", "target", "measured (95 %)", "reason"), unmet)
    pages += [f"- {OTHERS['whole_store']}"] if (folder / "whole_store.json").exists() else []
    return {
        "answers": f"{summary(results)}\n\n" + table(("measured", "kdcache", "beside it", "all figures"), rows),
        "targets": f"{line_of_counts(groups)}.\n\n{targets if unmet else ''}",
        "tables": "\n".join(pages),
        "conditions": "\n".join(f"- {line}" for line in [*_lines_of_runs(conditions), *_other_runs(folder)]),
    }


def _measured(figure: Figure) -> str:
    spread = "" if figure.low == figure.high else f" ({shown(figure.low)} to {shown(figure.high)})"
    return f"{shown(figure.measured)}{spread} {unit_of(figure)}".strip()


def _lines_of_runs(conditions: dict[str, Conditions]) -> list[str]:
    return [f"{'; '.join(run['groups'])}: {line_of_conditions(run)}" for run in _runs(conditions)]


def _other_runs(folder: Path) -> list[str]:
    """Device, versions and command of the results that `make bench` does not measure."""
    lines = []
    for name, link in OTHERS.items():
        if (folder / f"{name}.json").exists():
            run = json.loads((folder / f"{name}.json").read_text())
            versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
            lines.append(f"{link}: {run['device']}; {versions}. By `{run['command']}`.")
    return lines


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
    """Write the JSON, the blocks of a page, the pages of tables in a folder of the page's name, and two pictures."""
    record = {"runs": _runs(conditions), "figures": {g: [f.model_dump() for f in each] for g, each in groups.items()}}
    place, tables = record_of(page), page.with_suffix("")
    place.parent.mkdir(parents=True, exist_ok=True)
    tables.mkdir(exist_ok=True)
    place.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    for heading, figures in groups.items():
        (tables / f"{page_of(heading)}.md").write_text(group_page(heading, figures, conditions[heading]))
    if (whole := place.with_name("whole_store.json")).exists():
        (tables / whole.name).with_suffix(".md").write_text(whole_store_page(json.loads(whole.read_text())))
    empty = "\n\n".join(["# Performance", *("\n".join(block) for block in BLOCKS.values()), ""])
    text = page.read_text() if page.exists() else empty
    for name, made in blocks_of(groups, conditions, place.parent).items():
        text = replaced(text, BLOCKS[name], made, page=page)
    page.write_text(text)
    plot(groups, place.with_name("performance.png"))
    sizes_picture.plot([figure for each in groups.values() for figure in each], place.with_name("bytes_a_row.png"))
