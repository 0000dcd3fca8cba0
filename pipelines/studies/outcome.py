"""The outcome of a study, as a record: what the terminal, the page and the picture show."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdcache.base.canonical import parse_json
from kdcache.base.records import Record
from kdcache.base.whole_files import make_folder, write_whole
from kdcache.errors import FormatError
from kdcache.pipelines.studies.claims import Findings, Values
from kdcache.pipelines.studies.study import Study
from kdcache.pipelines.studies.verdict import Judged, Verdict, adjusted, judge


class ClaimOutcome(Record):
    """A claim and its judgement, see `verdict.judge`; `holm` is the verdict with the study's other claims in view."""

    key: str
    text: str
    paper: str
    direction: str
    margin: float
    points: bool
    mean: float
    low: float
    high: float
    p: float
    verdict: Verdict
    holm: Verdict


class Outcome(Record):
    """The outcome of a study.

    data: what it was asked on. arms: the values of each measure, a value a seed, by arm. seconds, cpu_seconds: of this
    run of the command, in which `made` pieces were made, `present` ones found, and a teacher was asked `rows_asked`
    rows. versions: of what computes. command: the line that makes it again.
    """

    study: str
    row: int
    title: str
    paper: str
    question: str
    data: str
    seeds: tuple[int, ...]
    toy: bool
    baseline: str
    measure: str
    arms: dict[str, dict[str, tuple[float, ...]]]
    claims: tuple[ClaimOutcome, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    made: int
    present: int
    rows_asked: int
    versions: dict[str, str]
    device: str
    command: str

    @property
    def verdict(self) -> str:
        """The number of claims that were shown, such as `shown 2 of 3, reversed 1`."""
        count = [claim.verdict for claim in self.claims].count
        reversed_text = f", reversed {count('reversed')}" if count("reversed") else ""
        return f"shown {count('shown')} of {len(self.claims)}{reversed_text}"


def judged_claims(study: Study, findings: Findings) -> tuple[ClaimOutcome, ...]:
    """The study's claims in their order, judged. Raises KeyError for a claim without evidence."""
    judged = [judge(claim, findings.evidence[key]) for key, claim in study.claims.items()]
    return tuple(
        _claim(key, study, one, holm) for key, one, holm in zip(study.claims, judged, adjusted(judged), strict=True)
    )


def _claim(key: str, study: Study, one: Judged, holm: Verdict) -> ClaimOutcome:
    claim = study.claims[key]
    return ClaimOutcome(
        key=key, text=claim.text, paper=claim.paper, direction=claim.direction, margin=claim.margin,
        points=claim.points, mean=one.mean, low=one.low, high=one.high, p=one.p, verdict=one.verdict, holm=holm,
    )  # fmt: skip


def plain(arms: Mapping[str, Mapping[str, Values]]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Arrays as tuples of floats."""
    return {
        arm: {name: tuple(np.asarray(v).tolist()) for name, v in measures.items()} for arm, measures in arms.items()
    }


def path_of(folder: Path, name: str) -> Path:
    """Where a study's outcome lies."""
    return folder / f"{name}.json"


def save(outcome: Outcome, folder: Path) -> None:
    """Write an outcome whole, over an earlier one."""
    make_folder(folder)
    write_whole(path_of(folder, outcome.study), outcome.to_bytes() + b"\n")


def load(folder: Path, name: str) -> Outcome | None:
    """The outcome of a study in a folder, None where there is none. Raises FormatError for another file."""
    path = path_of(folder, name)
    if not path.is_file():
        return None
    data = path.read_bytes()
    parse_json(data, str(path))
    try:
        outcome = Outcome.from_bytes(data, str(path))
    except ValueError as error:
        raise FormatError(f"{path} is no outcome of a study ({error}); remove it and run the study again") from error
    return outcome.model_copy(update={"arms": {arm: outcome.arms[arm] for arm in sorted(outcome.arms, key=by_numbers)}})


def by_numbers(arm: str) -> list[tuple[int, str]]:
    """A key by which `kd 64` comes before `kd 256`: a file has arms in the order of their letters."""
    parts = re.split(r"(\d[\d,]*\d|\d)", arm)
    return [(int(part.replace(",", "")), "") if number % 2 else (0, part) for number, part in enumerate(parts)]
