"""Pictures that can be read at a width of 400 pixels, on a white ground, whatever the page around them."""

from pathlib import Path
from typing import Any

WIDTH, DPI = 4.8, 200  # inches: at 400 pixels a letter of 9 points is 10 pixels high


def canvas(height: float) -> Any:
    """matplotlib's Figure of the width of a page and a height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
