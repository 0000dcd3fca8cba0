"""The tables of docs/sweep_costs.md are written from docs/figures/sweep_total_time.json.

python -m tests.benchmarks.sweeps_page
"""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES, PAGE = DOCS / "figures" / "sweep_total_time.json", DOCS / "sweep_costs.md"
BEGIN, END = "<!-- made by python -m tests.benchmarks.sweeps_page -->", "<!-- end of what is made -->"


def made(study: dict[str, Any]) -> str:
    """The tables and the conditions of the run that a record of `tests.benchmarks.sweeps` holds."""
    total, protocol = study["total_seconds"], study["protocol"]
    lines = ["CPU seconds in all:", ""]
    lines += ["| students | teacher in the loop | store, one by one | store, side by side | times as fast |"]
    lines += ["|---|---|---|---|---|"]
    for row in total["totals"]:
        summed = "" if row["whole"] else " (sum)"
        times = row["live"] / row["store_together"]
        lines.append(
            f"| {row['n']} | {row['live']:.1f}{summed} | {row['store']:.1f}{summed} | {row['store_together']:.1f} | "
            f"{times:.2f} |"
        )
    with_store, with_teacher = (total[f"student_with_{name}"]["median"] for name in ("store", "teacher"))
    counts = list(next(iter(study["side_by_side"].values()))["times_one"])
    lines += [
        "",
        "*sum*: n times the median of the students that were trained whole in that way.",
        f"The extraction takes {total['extract']:.1f} s, a student {with_store:.1f} s with the store and "
        f"{with_teacher:.1f} s with the teacher",
        f"in the loop. The store pays from {total['break_even']['one_by_one']:.2f} students on; where each epoch has a "
        f"view of its own, from {total['break_even']['one_view_an_epoch']:.2f}.",
        "",
        "One step of n students side by side, in times of a step of one:",
        "",
        f"| data | {' | '.join(f'{n} students' for n in counts)} |",
        "|---" * (1 + len(counts)) + "|",
    ]
    for name, row in study["side_by_side"].items():
        cells = [f"{row['times_one'][n]:.2f}" for n in counts]
        lines.append(f"| {' | '.join([name, *cells])} |")
    versions = ", ".join(f"{name} {number}" for name, number in study["versions"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Conditions: {protocol['rows']} rows of {protocol['data']}, {protocol['views']} views, "
            f"{protocol['epochs']} epochs, batches of {protocol['batch_size']}; a teacher of",
            f"{study['parameters']['teacher']:,} parameters, students of {study['parameters']['student']:,}. "
            f"JPEG photographs: {protocol['photographs']}, cropped to {protocol['side']}. Medians of",
            f"{protocol['trials']} trials. Device: {study['device']}. {versions}.",
            "",
            f"    {study['command']} --out docs/figures",
        ]
    )


def text_of(page: str, study: dict[str, Any]) -> str:
    """A page with its tables made anew; what people wrote around them stays."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made(study)}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(text_of(PAGE.read_text(), json.loads(FIGURES.read_text())))
