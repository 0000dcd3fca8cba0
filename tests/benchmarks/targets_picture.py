"""A picture of every figure that has a target, as a fraction of the target."""

from pathlib import Path

from tests.benchmarks.answers import Groups
from tests.benchmarks.harness import Figure

# colour and marker, so that verdicts differ without colours too
STYLES = {"met": ("#0072b2", "o"), "open": ("#e69f00", "D"), "missed": ("#b2182b", "X")}


def plot(groups: Groups, path: Path) -> None:
    """Left of the line is better, whichever way the figure runs. Nothing is drawn where nothing has a target."""
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
