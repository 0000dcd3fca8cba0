"""The page of all studies is written from their outcomes: a line a claim, a picture a study, reasons for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError
from kdcache.measures.intervals import LEVEL
from kdcache.pipelines.studies.catalogue import STUDIES, load_study
from kdcache.pipelines.studies.claims import SHARES
from kdcache.pipelines.studies.outcome import ClaimOutcome, Outcome, load
from kdcache.pipelines.studies.settings import FIRST_SEED, SEEDS
from kdcache.pipelines.studies.study import Study
from kdcache.pipelines.studies.verdict import decided

HEAD = """# Studies: published systems, asked again from stores

Each study below is one command. It trains its teachers, extracts their stores and trains students from these alone;
pieces that are there are taken as they are, also by another study. A claim is judged by the 95 % interval of one number
over {n} seeds or more, from seed {first} on; protocols were fixed on other seeds before. *Shown*: the whole interval is
on the claimed side. *Reversed*: it is on the other. *Not shown*: it straddles. By chance alone about {chance:.1f} of
these {claims} claims would be decided wrongly at this level; "all in view" is the verdict by Holm's procedure over all
of them. Seconds are of the machine that a study's section names, which did other work too; they are fewer where pieces
were there already.
"""


@dataclass(frozen=True)
class Published:
    """An outcome on a page: `on` is the folder inside the page's that names its data set, empty for the first."""

    on: str
    outcome: Outcome

    @property
    def name(self) -> str:
        """The study, with its data set."""
        return f"{self.outcome.study}, {self.on}" if self.on else self.outcome.study

    @property
    def anchor(self) -> str:
        """The name as a page's link has it."""
        return self.name.replace(", ", "-")

    @property
    def picture(self) -> str:
        """Where the picture lies in the page's folder of outcomes."""
        return f"{self.on}/{self.outcome.study}.png" if self.on else f"{self.outcome.study}.png"


def write_page(folder: Path, page: Path) -> None:
    """Write the page (.md) of the outcomes in a folder, and in the folders inside it that name further data sets.
    Raises InvalidInputError where there is none, and for outcomes that must not be published: toys, too few seeds,
    seeds that protocols were tried on."""
    published = outcomes_in(folder)
    if not published:
        raise InvalidInputError(f"{folder} holds no outcome of a study; run kdcache study NAME first")
    for one in published:
        seeds = one.outcome.seeds
        if one.outcome.toy or len(seeds) < SEEDS or seeds[0] < FIRST_SEED:
            raise InvalidInputError(
                f"{one.name} was run on seeds {seeds[0]} to {seeds[-1]}{', at toy size' if one.outcome.toy else ''}; "
                f"a page needs {SEEDS} or more from {FIRST_SEED} on"
            )
    write_whole(page, text_of(published, folder, page.parent).encode())


def outcomes_in(folder: Path) -> list[Published]:
    """The outcomes in a folder in the order of the papers, then those of each folder inside it."""
    places = ["", *sorted(path.name for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
    return [
        Published(on, outcome) for on in places for name in STUDIES if (outcome := load(folder / on, name)) is not None
    ]


def text_of(published: Sequence[Published], folder: Path, beside: Path) -> str:
    """The text of the page; pictures in `folder` are named from `beside`."""
    claims = [claim for one in published for claim in one.outcome.claims]
    holm = iter(decided([claim.p for claim in claims]))
    minimum = min(len(one.outcome.seeds) for one in published)
    head = HEAD.format(n=minimum, first=FIRST_SEED, chance=LEVEL * len(claims), claims=len(claims))
    systems = ["| row | study | question | n | verdict | seconds (CPU) | command |", "|---|---|---|---|---|---|---|"]
    table = [
        "| row | study | claim | paper | here (95 %) | n | verdict | all in view |",
        "|---|---|---|---|---|---|---|---|",
    ]
    parts: list[str] = []
    for one in published:
        outcome, link = one.outcome, f"[{one.name}](#{one.anchor})"
        n, seconds = len(outcome.seeds), f"{outcome.seconds:.0f} ({outcome.cpu_seconds:.0f})"
        systems.append(
            f"| {outcome.row} | {link} | {outcome.question} | {n} | {outcome.verdict} | {seconds} | "
            f"`{outcome.command}` |"
        )
        for claim in outcome.claims:
            last = claim.verdict if next(holm) else "not shown"
            table.append(
                f"| {outcome.row} | {link} | {claim.text} | {claim.paper or '-'} | {interval_text(claim)} | {n} | "
                f"{claim.verdict} | {last} |"
            )
        parts += _section(load_study(outcome.study), one, folder, beside)
    return "\n".join([head, *systems, "", "## Claim by claim", "", *table, "", *parts])


def _section(study: Study, one: Published, folder: Path, beside: Path) -> list[str]:
    outcome, on = one.outcome, f", {one.on}" if one.on else ""
    reasons = [
        f"- *{claim.text}*: {claim.verdict}. {study.why[claim.key + on]}"
        for claim in outcome.claims
        if claim.verdict != "shown" and claim.key + on in study.why
    ]
    values = [f"{arm} {_mean(outcome, arm)}" for arm, measures in outcome.arms.items() if outcome.measure in measures]
    picture = f"{_relative(folder, beside)}/{one.picture}"
    return [
        f"## {one.name}",
        "",
        f"{outcome.title}. {outcome.paper}. {outcome.question[0].upper()}{outcome.question[1:]}.",
        "",
        f"    {outcome.command}",
        "",
        f"![{one.name}: every arm less {outcome.baseline}]({picture})",
        "",
        f"{outcome.measure.replace('_', ' ').capitalize()}: {', '.join(values)}.",
        f"{outcome.data}; {outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} CPU s, {outcome.made} pieces made,",
        f"{outcome.present} found; {outcome.device}; torch {outcome.versions.get('torch', '')}.",
        "",
        *(f"- Not as in the paper: {difference}" for difference in outcome.differences),
        *(f"- {note[0].upper()}{note[1:]}." for note in outcome.notes),
        *reasons,
        "",
    ]


def _relative(folder: Path, beside: Path) -> str:
    return Path(*folder.parts[len(beside.parts) :]).as_posix() if folder.is_relative_to(beside) else folder.as_posix()


def _mean(outcome: Outcome, arm: str) -> str:
    mean = float(np.mean(outcome.arms[arm][outcome.measure]))
    return f"{100 * mean:.2f} %" if outcome.measure in SHARES else f"{mean:.4g}"


def interval_text(claim: ClaimOutcome) -> str:
    """A claim's number with its interval, shares in points, and the margin where one was stated."""
    factor, digits = (100.0, ".2f") if claim.points else (1.0, ".4g")
    text = f"{factor * claim.mean:+{digits}} ({factor * claim.low:+{digits}} to {factor * claim.high:+{digits}})"
    return text if claim.direction == "above" else f"{text}, margin {factor * claim.margin:{digits}}"
