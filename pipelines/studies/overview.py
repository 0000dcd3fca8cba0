"""The overview of all studies: how to run one, how to read a verdict, a line a study; and the page of all claims."""

from collections.abc import Sequence

from kdcache.measures.intervals import LEVEL
from kdcache.pipelines.studies.catalogue import STUDIES
from kdcache.pipelines.studies.outcome import ClaimOutcome
from kdcache.pipelines.studies.published import Published, cell, interval_text
from kdcache.pipelines.studies.settings import FIRST_SEED
from kdcache.pipelines.studies.verdict import Verdict

HEAD = """# Studies: do published claims hold here?

A study asks the claims of one paper on knowledge distillation again, by one command:

    kdcache study                      # the list of studies, with the minutes that each takes
    kdcache study tang                 # run one: trains, compares, prints a verdict for each claim
    kdcache study tang --jobs 2        # the same, with two processes that train
    kdcache study tang --toy           # a short trial on digits: does it run at all
    kdcache study tang --commands      # print the kdcache lines of every arm, and run none

A study has *arms*: ways to train a student, such as with and without a teacher. It trains its teachers, extracts their
[stores](concepts.md), trains the students of every arm from these alone, and measures them on test rows. Each arm
has a student for each of {n} seeds. Differences between arms are paired by seed.

Teachers, stores and runs are kept in the folder `studies` (`--folder`). A study that was stopped goes on by the same
command, and a study takes what another has made. `studies/tang.json` holds the outcome, `studies/tang.png` the picture.

## Read a verdict

A claim is about one number, such as the accuracy of one arm less that of another. Its verdict follows from the 95 %
interval of the number over seeds (Student's t):

{verdicts}

Shares are in points of a hundred. A claim that two arms are the same, or that one is not below another, has a *margin*,
which was set before the run: "the same" is shown where the whole interval lies between -margin and +margin.

Of {claims} claims, about {chance:.1f} would be decided wrongly by chance at this level. So each claim has a second
verdict, *all in view*: by Holm's procedure (1979) over all claims of these pages. It is the same, or "not shown".

A verdict is about the small networks and data sets of these studies, which run on CPUs in minutes. It does not say
that a paper is wrong: each page lists what is not as in the paper, and why a claim may not be shown here.

## Use your own data, teacher or student

    kdcache study tang --data folder:pictures --transform center --transform-set size=64
    kdcache study tang --data folder:pictures --teacher torchvision:resnet50 --student torchvision:resnet18

`--weights FILE` are those of your teacher; without them the study trains it. Some studies make a kind of network, or
data, that no other can replace: they refuse yours by name, before any work.

## All studies

Protocols were fixed on other seeds; verdicts are from seed {first} on. [All claims in one table]({inside}/claims.md).

"""

FOOT = """
## Write these pages

    kdcache study --page docs/studies.md --folder docs/figures/studies

writes this page, the table of all claims and a page for each study from the outcomes (.json) in the folder. Folders
inside it, such as `glyphs`, hold outcomes on further data sets. Toys and runs of fewer than {n} seeds are refused.
"""

MEANINGS: dict[Verdict, str] = {
    "shown": "the whole interval is on the claimed side",
    "reversed": "the whole interval is on the other side",
    "not shown": "the interval lies on both sides: these seeds do not decide it",
}


def overview_text(published: Sequence[Published], inside: str) -> str:
    """The text of the overview; `inside` is the folder of the other pages."""
    claims = [claim for one in published for claim in one.outcome.claims]
    n = min(len(one.outcome.seeds) for one in published)
    head = HEAD.format(
        n=n,
        first=FIRST_SEED,
        claims=len(claims),
        chance=LEVEL * len(claims),
        inside=inside,
        verdicts="\n".join(_verdicts(published, inside)),
    )
    return head + "\n".join(_systems(published, inside)) + "\n" + FOOT.format(n=n)


def _verdicts(published: Sequence[Published], inside: str) -> list[str]:
    lines = ["| verdict | meaning | example |", "|---|---|---|"]
    for verdict, meaning in MEANINGS.items():
        example = next((text for one in published for text in _examples(one, verdict, inside)), "-")
        lines.append(f"| {verdict} | {meaning} | {example} |")
    return lines


def _examples(one: Published, verdict: Verdict, inside: str) -> list[str]:
    """The claims of a verdict that a reader understands at once: above zero, in points."""
    return [
        f"[{one.name}]({inside}/{one.outcome.study}.md): {cell(claim.text)}: {interval_text(claim)}"
        for claim in one.outcome.claims
        if claim.verdict == verdict and claim.direction == "above" and claim.points
    ]


def _systems(published: Sequence[Published], inside: str) -> list[str]:
    """A line a study: its verdict on each data set."""
    places = list(dict.fromkeys(one.on for one in published))
    verdicts = {(one.outcome.study, one.on): one.outcome.verdict for one in published}
    heads = [f"on {on}" if on else "verdict" for on in places]
    lines = [f"| study | paper | claim | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|"]
    for study in sorted({one.outcome.study for one in published}, key=STUDIES.index):
        outcome = next(one.outcome for one in published if one.outcome.study == study)
        cells = [f"[{study}]({inside}/{study}.md)", outcome.paper.partition(",")[0], outcome.question]
        cells += [verdicts.get((study, on), "-") for on in places]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def claims_text(published: Sequence[Published], overview: str) -> str:
    """The text of the page of all claims, a line a claim; `overview` is the name of the page above."""
    lines = [
        "# All claims of all studies",
        "",
        f"[How to read a verdict](../{overview}#read-a-verdict). *Here* is the mean with its 95 % interval, shares in",
        "points of a hundred; *paper* is the paper's figure, where it gives one.",
        "",
        "| study | claim | paper | here (95 %) | n | verdict | all in view |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in published:
        link = f"[{one.name}]({one.outcome.study}.md)"
        for claim, in_view in zip(one.outcome.claims, one.in_view, strict=True):
            lines.append(f"| {link} | {' | '.join(_claim_cells(claim, len(one.outcome.seeds), in_view))} |")
    return "\n".join(lines) + "\n"


def _claim_cells(claim: ClaimOutcome, n: int, in_view: Verdict) -> list[str]:
    return [
        cell(text) for text in (claim.text, claim.paper or "-", interval_text(claim), str(n), claim.verdict, in_view)
    ]
