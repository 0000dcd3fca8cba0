"""The tables of docs/taps.md, by docs/figures/features.json and taps_live.json.

`python -m tests.kits.taps_page` writes them anew.
"""

import json
from typing import Any

from tests.kits.house import ROOT

PAGE = ROOT / "docs/taps.md"
MADE = "made by python -m tests.kits.taps_page -->\n"
SAYS = {"labels": "labels alone"}


def page_with_tables() -> str:
    """The page with its tables made anew."""
    page = PAGE.read_text()
    for name, make in (("features", _objectives), ("taps_live", _live)):
        table = make(json.loads((ROOT / f"docs/figures/{name}.json").read_text()))
        begin, end = f"<!-- {name}: {MADE}", f"<!-- end of {name} -->"
        start, stop = page.index(begin) + len(begin), page.index(end)
        page = page[:start] + table + page[stop:]
    return page


def _objectives(record: dict[str, Any]) -> str:
    rows = [
        "| objective | settings | test accuracy, % | minus labels alone (95 %) | minus kd (95 %) | bytes a row |",
        "|---|---|---|---|---|---|",
    ]
    for line in record["table"]:
        name = line["objective"]
        settings = ", ".join(f"{key} {value:g}" for key, value in line["settings"].items()) or "defaults"
        cells = [SAYS.get(name, name), settings, f"{line['accuracy']['mean']:.2f}"]
        cells += ["" if name == other else _paired(line[f"minus_{other}"]) for other in ("labels", "kd")]
        cells.append(f"{line['bytes_a_row']:.0f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _live(record: dict[str, Any]) -> str:
    results = record["results"]
    rows = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for title, arm in (("from the store", "cached"), ("nudged teacher", "nudged")):
        cells = [_paired(result["minus_live_points"][arm]) for result in results.values()]
        rows.append(f"| accuracy, {title} minus live, points (95 %) | {' | '.join(cells)} |")
    for title, arm in (
        ("both maps on one student", "one student"),
        ("two students, store and live", "cached"),
        ("two students, nudged and live", "nudged"),
    ):
        cells = [f"{result['largest_relative_loss_difference_of_first_steps'][arm]:.2g}" for result in results.values()]
        rows.append(f"| largest relative difference of the loss, {title} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _paired(values: dict[str, float]) -> str:
    return f"{values['mean']:+.2f} ({values['low']:+.2f} to {values['high']:+.2f})"


if __name__ == "__main__":
    PAGE.write_text(page_with_tables())
