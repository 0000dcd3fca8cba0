"""A study asks a paper's question again: claims that can be judged, and a function that trains what they speak of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kdcache.pipelines.studies.bench import Bench
from kdcache.pipelines.studies.claims import Claim, Findings

Own = Literal["any", "untrained", "none"]
"""The teacher of the user's own that a study can ask: any; one that it trains itself (the claims are about its seeds,
checkpoints or rows); none, since its teachers are of a kind that the study makes."""


@dataclass(frozen=True)
class Study:
    """A study by its name, usually the paper's first author.

    row: its number in the list of systems. question: the claim in a line. claims: by key. differences: what is not
    as in the paper, every item a sentence, {data} for the data set's name. why: for claims that are not shown or
    reversed in a published run, by key, or by "key, data set" for a further one: why that may be. own_teacher: see
    `Own`. own_student: false where students are of a kind that the study makes. own_sizes: false where rows and
    epochs of students are what it varies. draws: true where it draws views of its own, of pictures as they are.
    fewest_rows, fewest_classes: of a training split, those that are held out not counted. minutes: on two cores.
    baseline, measure: the arm that others are shown against, and by what. data, train_set, val_set: a data set of
    the study's own, which no other can replace, but where it `reads_texts`: then other texts can; `toy_set`: further
    arguments of both splits of a toy; `needs_fashion`: it is made of Fashion-MNIST.
    """

    name: str
    row: int
    title: str
    paper: str
    question: str
    claims: Mapping[str, Claim]
    differences: tuple[str, ...]
    run: Callable[[Bench], Findings]
    minutes: float
    baseline: str
    measure: str = "accuracy"
    own_teacher: Own = "any"
    own_student: bool = True
    own_sizes: bool = True
    draws: bool = False
    fewest_rows: int = 0
    fewest_classes: int = 2
    data: str = ""
    train_set: Mapping[str, Any] = field(default_factory=dict)
    val_set: Mapping[str, Any] = field(default_factory=dict)
    toy_set: Mapping[str, Any] = field(default_factory=dict)
    reads_texts: bool = False
    needs_fashion: bool = False
    why: Mapping[str, str] = field(default_factory=dict)


def differences_on(study: Study, data: str, *, teacher: str = "", student: str = "") -> tuple[str, ...]:
    """A study's differences from its paper, with the data set named that it was asked on. Where `teacher` or `student`
    is the user's own, the study cannot know them."""
    roles = {"teacher": teacher, "student": student}
    if named := [f"{role} {spec}" for role, spec in roles.items() if spec]:
        return (f"Asked with {' and '.join(named)} on {data}: no difference but this is listed.",)
    return tuple(text.replace("{data}", data) for text in study.differences)
