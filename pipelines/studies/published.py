"""Outcomes of studies that a page shows, and the texts of their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.measures.intervals import half_width
from kdcache.pipelines.studies.catalogue import STUDIES
from kdcache.pipelines.studies.claims import SHARES
from kdcache.pipelines.studies.outcome import ClaimOutcome, Outcome, load
from kdcache.pipelines.studies.settings import FIRST_SEED, SEEDS
from kdcache.pipelines.studies.verdict import Verdict, decided


@dataclass(frozen=True)
class Published:
    """An outcome on a page: `on` is the folder inside the page's that names its data set, empty for the first;
    `in_view` are the verdicts of its claims with the claims of all outcomes in view."""

    on: str
    outcome: Outcome
    in_view: tuple[Verdict, ...]

    @property
    def name(self) -> str:
        """The study, with its data set."""
        return f"{self.outcome.study}, {self.on}" if self.on else self.outcome.study

    @property
    def picture(self) -> str:
        """Where the picture lies in the page's folder of outcomes."""
        return f"{self.on}/{self.outcome.study}.png" if self.on else f"{self.outcome.study}.png"


def outcomes_in(folder: Path) -> list[Published]:
    """The outcomes in a folder in the order of the papers, then those of each folder inside it."""
    places = ["", *sorted(path.name for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
    outcomes = [(on, outcome) for on in places for name in STUDIES if (outcome := load(folder / on, name)) is not None]
    stays = iter(decided([claim.p for _, outcome in outcomes for claim in outcome.claims]))
    return [
        Published(on, outcome, tuple(claim.verdict if next(stays) else "not shown" for claim in outcome.claims))
        for on, outcome in outcomes
    ]


def require_publishable(published: Sequence[Published], folder: Path) -> None:
    """Raises InvalidInputError where there is no outcome, and for outcomes that must not be published: toys, too few
    seeds, seeds that protocols were tried on."""
    if not published:
        raise InvalidInputError(f"{folder} holds no outcome of a study; run kdcache study NAME first")
    for one in published:
        seeds = one.outcome.seeds
        if one.outcome.toy or len(seeds) < SEEDS or seeds[0] < FIRST_SEED:
            raise InvalidInputError(
                f"{one.name} was run on seeds {seeds[0]} to {seeds[-1]}{', at toy size' if one.outcome.toy else ''}; "
                f"a page needs {SEEDS} or more from {FIRST_SEED} on"
            )


def interval_text(claim: ClaimOutcome) -> str:
    """A claim's number with its interval, shares in points, and the margin where one was stated."""
    text = _with_interval(claim.mean, claim.low, claim.high, is_share=claim.points)
    factor, digits = (100.0, ".2f") if claim.points else (1.0, ".4g")
    return text if claim.direction == "above" else f"{text}, margin {factor * claim.margin:{digits}}"


def mean_text(values: Sequence[float], measure: str) -> str:
    """The mean of a measure over seeds, shares in per cent."""
    mean = float(np.mean(values))
    return f"{100 * mean:.2f} %" if measure in SHARES else f"{mean:.4g}"


def difference_text(values: Sequence[float], base: Sequence[float], measure: str) -> str:
    """The mean over seeds of a paired difference with its 95 % interval, as the picture has it."""
    paired = np.subtract(values, base)
    mean, half = float(paired.mean()), half_width(paired.tolist())
    return _with_interval(mean, mean - half, mean + half, is_share=measure in SHARES)


def _with_interval(mean: float, low: float, high: float, *, is_share: bool) -> str:
    factor, digits = (100.0, ".2f") if is_share else (1.0, ".4g")
    return f"{factor * mean:+{digits}} ({factor * low:+{digits}} to {factor * high:+{digits}})"


def cell(text: str) -> str:
    """A text as a cell of a table in Markdown."""
    return text.replace("|", "\\|")
