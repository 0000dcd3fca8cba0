"""A picture of every figure that has a target, as a fraction of the target, a line for each benchmark."""

from pathlib import Path

from tests.benchmarks.answers import Groups
from tests.benchmarks.canvas import canvas, save
from tests.benchmarks.harness import Figure

# colour and marker, so that verdicts differ without colours too
STYLES = {"met": ("#0072b2", "o"), "open": ("#e69f00", "D"), "missed": ("#b2182b", "X")}
LEAST = 1e-3  # of a target: what took nothing is drawn here


def plot(groups: Groups, path: Path) -> None:
    """Left of the line is better, whichever way the figure runs. Nothing is drawn where nothing has a target."""
    judged = {name: [figure for figure in figures if figure.target] for name, figures in groups.items()}
    judged = {name: figures for name, figures in judged.items() if figures}
    if not judged:
        return
    figure = canvas(1.3 + 0.55 * len(judged))
    axes = figure.subplots()
    for row, figures in enumerate(judged.values()):
        for number, each in enumerate(sorted(figures, key=lambda each: _worse(each, each.measured))):
            height = row + 0.36 * (2 * (number + 0.5) / len(figures) - 1)
            ends = sorted(_worse(each, value) for value in (each.low, each.high))
            colour, marker = STYLES[each.verdict]
            axes.plot(ends, [height, height], color=colour, lw=1.5, alpha=0.5)
            axes.plot(_worse(each, each.measured), height, marker, color=colour, ms=4)
    for verdict, (colour, marker) in STYLES.items():
        count = sum(each.verdict == verdict for figures in judged.values() for each in figures)
        axes.plot([], [], marker, color=colour, ms=6, label=f"{verdict} ({count})")
    axes.axvline(1.0, color="0.3", lw=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(judged)), [name.split(",")[0].split(":")[0] for name in judged])
    axes.set_ylim(len(judged) - 0.5, -0.5)
    for row in range(1, len(judged)):
        axes.axhline(row - 0.5, color="0.85", lw=0.8)
    axes.set_xlabel("share of the target; right of 1 is worse")
    figure.legend(loc="outside upper center", ncols=len(STYLES), frameon=False)
    save(figure, path)


def _worse(figure: Figure, value: float) -> float:
    assert figure.target is not None
    return max(value / figure.target if figure.better == "lower" else figure.target / max(value, 1e-12), LEAST)
