"""A study asks a paper's question again: claims that can be judged, and a function that trains what they speak of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kdcache.pipelines.studies.bench import Bench

Values = npt.NDArray[np.float64]
"""One value a seed, in the order of the bench's seeds."""

SHARES = ("accuracy", "agreement", "ece", "worst_3_classes", "worst_class", "attention_iou")
"""Measures that are shares, shown in points of a hundred."""

Direction = Literal["above", "same", "not below"]
"""The claimed side of a difference: above 0; between -margin and margin; above -margin."""

Own = Literal["any", "untrained", "none"]
"""The teacher of the user's own that a study can ask: any; one that it trains itself (the claims are about its seeds,
checkpoints or rows); none, since its teachers are of a kind that the study makes."""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper about one number, whose values over seeds the study gives.

    text: the claim, of which the number is the evidence. paper: the paper's own figure, empty where it gives none.
    margin: in the number's own unit, for claims of no difference; stated before any run. points: true where the number
    is a share, which is printed in points of a hundred.
    """

    text: str
    paper: str = ""
    direction: Direction = "above"
    margin: float = 0.0
    points: bool = True


@dataclass(frozen=True)
class Findings:
    """What a study measured.

    arms: the measures of each arm by name, a value a seed. evidence: the values of each claim's number, by the claim's
    key. notes: for the reader.
    """

    arms: Mapping[str, Mapping[str, Values]]
    evidence: Mapping[str, Values]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study by its name, usually the paper's first author.

    row: its number in the list of systems. question: the claim in a line. claims: by key. differences: what is not as
    in the paper, every item a sentence. why: for claims that are not shown or reversed in the published run, by key:
    why that may be. own_teacher: see `Own`. own_student: false where students are of a kind that the study makes.
    minutes: on two cores. baseline, measure: the arm that others are shown against, and by what. data, train_set,
    val_set: a data set of the study's own, which no other can replace; `needs_fashion`: it is made of Fashion-MNIST.
    """

    name: str
    row: int
    title: str
    paper: str
    question: str
    claims: Mapping[str, Claim]
    differences: tuple[str, ...]
    run: Callable[["Bench"], Findings]
    minutes: float
    baseline: str
    measure: str = "accuracy"
    own_teacher: Own = "any"
    own_student: bool = True
    data: str = ""
    train_set: Mapping[str, Any] = field(default_factory=dict)
    val_set: Mapping[str, Any] = field(default_factory=dict)
    needs_fashion: bool = False
    why: Mapping[str, str] = field(default_factory=dict)
