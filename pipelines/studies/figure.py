"""The picture of a study: every arm against the baseline, a dot a seed, the mean and its interval."""

import re
import textwrap
from pathlib import Path

import numpy as np

from kdcache.base.figures import figure_class, save_picture
from kdcache.measures.intervals import half_width
from kdcache.pipelines.studies.claims import SHARES
from kdcache.pipelines.studies.outcome import Outcome

WIDTH, HEAD, ROW, DPI = 4.8, 1.6, 0.34, 200  # inches, dots an inch: letters are 10 pixels high at a width of 400
LETTERS, LABEL = 62, 20  # of a line of the title, and of an arm's name


def draw(outcome: Outcome, path: Path) -> None:
    """Draw a study's arms into a .png, .pdf or .svg file. Paired by seed: each dot is a difference of one seed."""
    measure = outcome.measure
    factor, unit = (100.0, "points") if measure in SHARES else (1.0, "")
    arms = {arm: np.array(measures[measure]) for arm, measures in outcome.arms.items() if measure in measures}
    base = arms.pop(outcome.baseline)
    arms = {arm: arms[arm] for arm in sorted(arms, key=_by_numbers)}
    figure = figure_class()(facecolor="white", figsize=(WIDTH, HEAD + ROW * max(len(arms), 1)), layout="constrained")
    axes = figure.subplots()
    for place, values in enumerate(arms.values()):
        paired = factor * (values - base)
        mean, count = paired.mean(), len(paired)
        half = half_width(paired.tolist())
        axes.plot(paired, np.full(count, place) + 0.16, ".", color="tab:gray", alpha=0.6, markersize=5)
        axes.errorbar(mean, place - 0.08, xerr=half, fmt="o", color="tab:blue", capsize=3, markersize=5)
        text = f"{mean:+.2f}" if unit else f"{mean:+.3g}"
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(arms)), [textwrap.fill(arm, LABEL) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    name = measure.replace("_", " ")
    axes.set_xlabel(f'{name} minus that of "{outcome.baseline}"' + (f", {unit}" if unit else ""))
    level = f"{outcome.baseline}: {factor * base.mean():.4g}" + (" %" if unit else "")
    question = textwrap.fill(f"{outcome.study}: {outcome.question}", LETTERS)
    data = outcome.data.partition(": ")[0]
    text = f"{question}\n{data}\n{level}, n {len(base)}, mean and 95 % interval"
    figure.suptitle(text, fontsize=9, x=0.02, ha="left")
    save_picture(figure, path, dpi=DPI)


def _by_numbers(arm: str) -> list[tuple[int, str]]:
    """A key by which `kd 64` comes before `kd 256`: outcomes that were read from a file have lost the study's order."""
    parts = re.split(r"(\d[\d,]*\d|\d)", arm)
    return [(int(part.replace(",", "")), "") if number % 2 else (0, part) for number, part in enumerate(parts)]
