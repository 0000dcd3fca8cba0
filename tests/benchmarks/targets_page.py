"""The tables of docs/language_labels.md, on the learning of students from each kind of soft labels."""

from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks import blocks

MAKER = "python -m tests.benchmarks.targets"
BLOCKS = {name: blocks.marks(name, MAKER) for name in ("text", "pictures")}
TITLES = {"perplexity": "perplexity", "kl_to_teacher": "KL to the teacher, nats"}


def table(subject: dict[str, Any]) -> str:
    """The table of a subject: a line for each kind of soft labels, those of most bytes first."""
    lines, digits = subject["lines"], 1 if subject["measure"] == "perplexity" else 3
    has_gain = any("gain" in line for line in lines)
    columns = ["soft labels", "bytes a row", TITLES[subject["measure"]], "minus full (95 %)"]
    columns += ["error of the gradient", "of its mean", *(["share of full's gain"] if has_gain else [])]
    rows = []
    for line in lines:
        apart, is_full = line["apart"], line["name"] == "full"
        interval = f"{apart['mean']:+.{digits}f} ({apart['low']:+.{digits}f} to {apart['high']:+.{digits}f})"
        row = [line["name"], f"{line['bytes']:.1f}" if line["bytes"] else "-", f"{fmean(line['values']):.{digits}f}"]
        row.append("" if is_full else interval)
        row += [f"{line[key]:.2f}" if key in line and not is_full else "" for key in ("row_error", "mean_error")]
        rows.append([*row, *([f"{100 * line['gain']:.0f} %"] if has_gain else [])])
    return blocks.table(columns, rows)


def write_page(page: Path, record: dict[str, Any]) -> None:
    """Replace the tables of a page. Raises SystemExit for one without their marks."""
    text = page.read_text()
    for name, block in BLOCKS.items():
        subject = record[name]
        made = f"{table(subject)}\n\n{subject['subject'][0].upper()}{subject['subject'][1:]}; {record['conditions']}."
        text = blocks.replaced(text, block, made, page=page)
    page.write_text(text)
