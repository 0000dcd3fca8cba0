"""The tables of docs/scale.md, put between their marks; what people wrote around them stays."""

from pathlib import Path

Row = dict[str, str]
PAPER = ("<!-- on paper: made by python -m tests.benchmarks.scale -->", "<!-- end of paper -->")
GROWN = ("<!-- generated: made by python -m tests.benchmarks.scale -->", "<!-- end of generated -->")


def table(columns: dict[str, Row]) -> str:
    """A line for each key of the columns, which all have the same."""
    names = list(columns)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in columns[names[0]]:
        lines.append(f"| {key.strip()} | " + " | ".join(columns[name][key] for name in names) + " |")
    return "\n".join(lines)


def write_page(page: Path, paper: dict[str, Row], grown: dict[str, Row], conditions: str) -> None:
    text = page.read_text() if page.exists() else "# Scale\n\n" + "\n".join((*PAPER, "", *GROWN, ""))
    for (begin, end), made in ((PAPER, table(paper)), (GROWN, f"{table(grown)}\n\n{conditions}")):
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise SystemExit(f"{page} lacks the marks {begin} and {end}; put them where the table belongs")
        text = f"{before}{begin}\n\n{made}\n\n{end}{rest.partition(end)[2]}"
    page.write_text(text)
