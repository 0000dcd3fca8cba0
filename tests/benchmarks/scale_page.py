"""The blocks of docs/scale.md, put between their marks; what people wrote around them stays."""

from pathlib import Path

from tests.benchmarks import blocks

Row = dict[str, str]
MAKER = "python -m tests.benchmarks.scale"
ANSWER, PAPER, GROWN = (blocks.marks(name, MAKER) for name in ("answer", "on paper", "generated"))


def table(columns: dict[str, Row]) -> str:
    """A line for each key of the columns, which all have the same."""
    keys = next(iter(columns.values()))
    rows = [[key.strip(), *(column[key] for column in columns.values())] for key in keys]
    return blocks.table(["", *columns], rows)


def answer(paper: dict[str, Row], grown: dict[str, Row]) -> str:
    """The page in a few lines: size and files of each plan, and the time of opening."""
    lines = [f"- {name}: {column['size']} in {column['files']} files" for name, column in paper.items()]
    opened = ", ".join(f"{column['open, sealed']} with {rows}" for rows, column in grown.items())
    return "\n".join([*lines, "", f"A sealed store opens in constant time: {opened}."])


def write_page(page: Path, paper: dict[str, Row], grown: dict[str, Row], conditions: str) -> None:
    """Replace the blocks of a page. Raises SystemExit for one without their marks."""
    text = page.read_text() if page.exists() else "# Scale\n\n" + "\n\n".join((*ANSWER, *PAPER, *GROWN, ""))
    made = {ANSWER: answer(paper, grown), PAPER: table(paper), GROWN: f"{table(grown)}\n\n{conditions}"}
    for block, content in made.items():
        text = blocks.replaced(text, block, content, page=page)
    page.write_text(text)
