"""Trials of a teacher's input: other channel orders, normalisations and classes.

A teacher that is fed wrongly rarely falls to chance: reversed channels cost photographs a third of their accuracy, and
leave it above any limit. But another input preparation is then right far more often, on the very same rows.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.networks.answer import Answer
from kdcache.networks.answers import Answers
from kdcache.networks.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation, float_range

InputPreparation = Callable[[Tensor], Tensor]

SURE = 4.0  # standard deviations of a paired sign test (McNemar 1947): by chance once in 30,000
FEW = 5  # with fewer rows of a label, its most frequent answer says nothing of a permutation


class Asked(Protocol):
    """What trials ask of a teacher."""

    preparation: Preparation
    answers: Answers
    masked_classes: tuple[int, ...]

    def answer(self, images: Tensor, /) -> Answer: ...


def other_preparations(teacher: Asked, views: Tensor) -> dict[str, InputPreparation]:
    """Other input preparations of views like these [..., ch, H, W], by name. Floats are normalised in other ways only
    where they lie in 0..1 or in 0..255, as images do that nothing has normalised, or where mean and std are given."""
    current = teacher.preparation
    channels = views.shape[-3]
    preparations: dict[str, InputPreparation] = {}
    if channels == 3:
        preparations["channels reversed (RGB, BGR)"] = lambda images: current(images.flip(1))
    white = float_range(views) if views.is_floating_point() else 1
    if white is None:
        return preparations
    if channels == 3 and current.mean:
        preparations["channels, mean and std reversed (RGB, BGR)"] = lambda images: current(images).flip(1)
    normalisations = {
        "mean 0.5 and std 0.5": ((0.5,) * channels, (0.5,) * channels),
        "values from 0 to 1 (mean 0, std 1)": ((0.0,) * channels, (1.0,) * channels),
        "values from 0 to 255 (mean 0, std 1/255)": ((0.0,) * channels, (1.0 / 255.0,) * channels),
    }
    if channels == 3:
        normalisations["ImageNet's mean and std"] = (IMAGENET_MEAN, IMAGENET_STD)
    left_alone = (0.0,) * channels, (1.0 / white,) * channels  # by which floats without mean and std are fed
    given = (tuple(current.mean), tuple(current.std)) if current.mean else left_alone
    if views.is_floating_point() and current.mean and white == 255:
        given = tuple(value / white for value in current.mean), tuple(value / white for value in current.std)
    for name, (mean, std) in normalisations.items():
        if (mean, std) != given:
            scaled = tuple(white * value for value in mean), tuple(white * value for value in std)
            text = f"values divided by 255, then {name}" if white == 255 else name
            preparations[text] = Preparation(*scaled, current.device)
    return preparations


def surely_better(hits: npt.NDArray[np.bool_], other_hits: npt.NDArray[np.bool_]) -> bool:
    """True where other answers are right so much more often, on the same rows [R], that it is no chance."""
    gains, losses = int((other_hits & ~hits).sum()), int((hits & ~other_hits).sum())
    return gains - losses > SURE * float(np.sqrt(gains + losses))


def permutation_of(predictions: IntArray, labels: IntArray) -> dict[int, int]:
    """The permutation of labels that trade places among themselves: label -> the class it is answered as. Empty where
    none do."""
    permutation: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        classes, counts = np.unique(predictions[labels == label], return_counts=True)
        guess = int(classes[counts.argmax()])
        if counts.sum() >= FEW and 2 * counts.max() > counts.sum() and guess != label:
            permutation[label] = guess
    while strays := [label for label, guess in permutation.items() if guess not in permutation]:
        permutation = {label: guess for label, guess in permutation.items() if label not in strays}
    return permutation if len(set(permutation.values())) == len(permutation) else {}
