"""The page of one study: its picture, arms, claims, differences from the paper and reasons, on each data set."""

from collections.abc import Sequence

from kdcache.pipelines.studies.catalogue import load_study
from kdcache.pipelines.studies.outcome import Outcome
from kdcache.pipelines.studies.published import Published, cell, difference_text, interval_text, mean_text

DATA_SETS = {"glyphs": "The same study on letters and digits as Debian's fonts draw them: 62 classes."}
"""Further data sets by the folder of their outcomes, in a sentence."""


def study_text(published: Sequence[Published], pictures: str, overview: str) -> str:
    """The page of a study, whose outcomes these are; `pictures` is the folder of outcomes, as seen from the page, and
    `overview` the name of the page above."""
    first = published[0].outcome
    lines = [f"# {first.study}", "", f"Claim: {first.question}.", ""]
    lines += [f"Paper: *{first.title}*, {first.paper}. [How to read this page](../{overview}#read-a-verdict).", ""]
    for number, one in enumerate(published):
        if number:
            sentence = DATA_SETS.get(one.on, "The same study on other data.")
            lines += [f"## Asked again on {one.on}", "", sentence, ""]
        lines += _outcome_lines(one, None if one is published[0] else first, pictures)
    return "\n".join(lines).rstrip("\n") + "\n"


def _outcome_lines(one: Published, first: Outcome | None, pictures: str) -> list[str]:
    """The sections of an outcome; after that of another data set, which stands `first`, those that tell more."""
    outcome, level = one.outcome, "###" if first else "##"
    legend = [
        f"Each line is an arm. A grey dot is one seed: {outcome.measure.replace('_', ' ')} less that of the arm",
        f"`{outcome.baseline}` at the same seed. Blue is the mean over seeds with its 95 % interval.",
        "",
    ]
    differences = [text for text in outcome.differences if first is None or text not in first.differences]
    title = f" on {one.on}" if one.on else ""
    return [
        f"    {outcome.command}",
        "",
        f"![{one.name}: every arm less {outcome.baseline}]({pictures}/{one.picture})",
        "",
        *([] if first else legend),
        f"{level} Claims{title}",
        "",
        f"{outcome.verdict[0].upper()}{outcome.verdict[1:]}.",
        "",
        *_claims(one),
        "",
        f"{level} Arms{title}",
        "",
        *_arms(outcome),
        "",
        *_reasons(one, level, title),
        *(
            [f"{level} Not as in the paper{title}", "", *(f"- {text}" for text in differences), ""]
            if differences
            else []
        ),
        f"{level} The run{title}",
        "",
        *(f"- {note[0].upper()}{note[1:]}." for note in outcome.notes),
        f"- Data: {outcome.data}.",
        f"- Seeds: {outcome.seeds[0]} to {outcome.seeds[-1]}, n = {len(outcome.seeds)}.",
        f"- Device: {outcome.device}; torch {outcome.versions.get('torch', '')}.",
        f"- Time: {outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} CPU s, on a machine that did other work too.",
        f"- Pieces (teachers, stores, runs): {outcome.made} made, {outcome.present} there already.",
        "",
    ]


def _claims(one: Published) -> list[str]:
    lines = ["| claim | paper | here (95 %) | verdict | all in view |", "|---|---|---|---|---|"]
    for claim, in_view in zip(one.outcome.claims, one.in_view, strict=True):
        cells = (claim.text, claim.paper or "-", interval_text(claim), claim.verdict, in_view)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return lines


def _arms(outcome: Outcome) -> list[str]:
    measures = list(dict.fromkeys(name for values in outcome.arms.values() for name in values))
    measures.sort(key=lambda name: name != outcome.measure)
    heads = [name.replace("_", " ") for name in measures]
    lines = [
        f"| arm | {' | '.join(heads)} | {heads[0]} less {outcome.baseline} (95 %) |",
        "|---" * (len(heads) + 2) + "|",
    ]
    base = outcome.arms[outcome.baseline][outcome.measure]
    for arm, values in outcome.arms.items():
        cells = [mean_text(values[name], name) if name in values else "-" for name in measures]
        is_compared = arm != outcome.baseline and outcome.measure in values
        less = difference_text(values[outcome.measure], base, outcome.measure) if is_compared else "-"
        lines.append(f"| {' | '.join(map(cell, [arm, *cells, less]))} |")
    return lines


def _reasons(one: Published, level: str, title: str) -> list[str]:
    why, on = load_study(one.outcome.study).why, f", {one.on}" if one.on else ""
    reasons = [
        f'- "{claim.text}": {claim.verdict}. {why[claim.key + on]}'
        for claim in one.outcome.claims
        if claim.verdict != "shown" and claim.key + on in why
    ]
    return [f"{level} Why a claim may not be shown{title}", "", *reasons, ""] if reasons else []
