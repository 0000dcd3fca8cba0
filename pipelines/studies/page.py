"""The page of all studies is written from their outcomes: a line a claim, a picture a study, reasons for the rest."""

from collections.abc import Sequence
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
these {claims} claims would be decided wrongly at this level; the last column is the verdict by Holm's procedure over
all of them.
"""


def write_page(folder: Path, page: Path) -> None:
    """Write the page (.md) of the outcomes in a folder. Raises InvalidInputError where there is none, and for outcomes
    that must not be published: toys, too few seeds, seeds that protocols were tried on."""
    outcomes = [outcome for name in STUDIES if (outcome := load(folder, name)) is not None]
    if not outcomes:
        raise InvalidInputError(f"{folder} holds no outcome of a study; run kdcache study NAME first")
    for outcome in outcomes:
        if outcome.toy or len(outcome.seeds) < SEEDS or outcome.seeds[0] < FIRST_SEED:
            raise InvalidInputError(
                f"{outcome.study} was run on seeds {outcome.seeds[0]} to {outcome.seeds[-1]}"
                f"{', at toy size' if outcome.toy else ''}; a page needs {SEEDS} or more from {FIRST_SEED} on"
            )
    write_whole(page, text_of(outcomes, folder, page.parent).encode())


def text_of(outcomes: Sequence[Outcome], folder: Path, beside: Path) -> str:
    """The text of the page; pictures in `folder` are named from `beside`."""
    claims = [claim for outcome in outcomes for claim in outcome.claims]
    holm = iter(decided([claim.p for claim in claims]))
    minimum = min(len(outcome.seeds) for outcome in outcomes)
    head = HEAD.format(n=minimum, first=FIRST_SEED, chance=LEVEL * len(claims), claims=len(claims))
    table = [
        "| row | study | claim | paper | here (95 %) | n | verdict | all in view |",
        "|---|---|---|---|---|---|---|---|",
    ]
    parts: list[str] = []
    for outcome in outcomes:
        study = load_study(outcome.study)
        for claim in outcome.claims:
            last = claim.verdict if next(holm) else "not shown"
            table.append(
                f"| {outcome.row} | [{outcome.study}](#{outcome.study}) | {claim.text} | {claim.paper or '-'} | "
                f"{interval_text(claim)} | {len(outcome.seeds)} | {claim.verdict} | {last} |"
            )
        parts += _section(study, outcome, folder, beside)
    return "\n".join([head, *table, "", *parts])


def _section(study: Study, outcome: Outcome, folder: Path, beside: Path) -> list[str]:
    reasons = [
        f"- *{claim.text}*: {claim.verdict}. {study.why[claim.key]}"
        for claim in outcome.claims
        if claim.verdict != "shown" and claim.key in study.why
    ]
    values = [f"{arm} {_mean(outcome, arm)}" for arm, measures in outcome.arms.items() if outcome.measure in measures]
    return [
        f"## {outcome.study}",
        "",
        f"{outcome.title}. {outcome.paper}. {outcome.question[0].upper()}{outcome.question[1:]}.",
        "",
        f"    {outcome.command}",
        "",
        f"![{outcome.study}: every arm less {outcome.baseline}]({_relative(folder, beside)}/{outcome.study}.png)",
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
