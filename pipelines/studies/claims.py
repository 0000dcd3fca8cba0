"""Claims that can be judged, and what a study measured of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""One value a seed, in the order of the bench's seeds."""

SHARES = ("accuracy", "agreement", "ece", "worst_3_classes", "worst_class", "attention_iou")
"""Measures that are shares, shown in points of a hundred."""

Direction = Literal["above", "same", "not below"]
"""The claimed side of a difference: above 0; between -margin and margin; above -margin."""


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


def accuracies(values: Mapping[str, Values]) -> dict[str, dict[str, Values]]:
    """Arms of which accuracy alone was measured, as findings have them."""
    return {arm: {"accuracy": accuracy} for arm, accuracy in values.items()}


@dataclass(frozen=True)
class Findings:
    """The measures of a study, and the evidence of its claims.

    arms: the measures of each arm by name, a value a seed. evidence: the values of each claim's number, by the claim's
    key. notes: for the reader.
    """

    arms: Mapping[str, Mapping[str, Values]]
    evidence: Mapping[str, Values]
    notes: tuple[str, ...] = ()
