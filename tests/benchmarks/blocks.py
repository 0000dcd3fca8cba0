"""Blocks of pages that a generator writes, each between two marks; what people wrote around them stays."""

from pathlib import Path


def marks(name: str, maker: str) -> tuple[str, str]:
    """The two marks of a block: <!-- name: made by maker --> and <!-- end of name -->."""
    return f"<!-- {name}: made by {maker} -->", f"<!-- end of {name} -->"


def replaced(text: str, block: tuple[str, str], made: str, *, page: Path) -> str:
    """The text of a page with another content between two marks. Raises SystemExit for a page without the marks."""
    begin, end = block
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} lacks the marks {begin} and {end}; put them where the table belongs")
    return f"{before}{begin}\n\n{made.strip()}\n\n{end}{rest.partition(end)[2]}"


def replace_block(page: Path, block: tuple[str, str], made: str) -> None:
    """Write a page anew with another content between two marks. Raises SystemExit for a page without the marks."""
    page.write_text(replaced(page.read_text(), block, made, page=page))


def table(columns: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
