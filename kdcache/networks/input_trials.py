"""Is a teacher fed as it is meant to be? Other channel orders, normalisations and classes on trial, and steadiness.

A teacher that is fed wrongly rarely falls to chance: reversed channels cost photographs a third of their accuracy, and
leave it above any limit. What gives it away is that another feeding is right far more often on the very same rows.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.errors import TeacherSuspectError
from kdcache.networks.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from kdcache.networks.teacher import Teacher

Feeding = Callable[[Tensor], Tensor]

SURE = 4.0  # standard deviations of a paired sign test (McNemar 1947): by chance once in 30,000
STEADY = 0.05  # RMS difference of two answers to the same rows, of the logits' spread; bfloat16 stays below 0.02
STEADY_ROWS = 32
TINY = 1e-4  # nats: a difference that no soft label shows
FEW = 5  # rows of a label below which its most frequent answer says nothing of a permutation


def other_feedings(teacher: Teacher, view: Tensor) -> dict[str, Feeding]:
    """Other ways to prepare views like this one [ch, H, W], by what they are; floats are normalised already."""
    given = teacher.preparation
    channels = view.shape[0]
    found: dict[str, Feeding] = {}
    if channels == 3:
        found["channels reversed (RGB, BGR)"] = lambda images: given(images.flip(1))
    if view.is_floating_point():
        return found
    if channels == 3:
        found["channels, mean and std reversed (RGB, BGR)"] = lambda images: given(images).flip(1)
    common = {
        "mean 0.5 and std 0.5": ((0.5,) * channels, (0.5,) * channels),
        "values from 0 to 1 (mean 0, std 1)": ((0.0,) * channels, (1.0,) * channels),
        "values from 0 to 255 (mean 0, std 1/255)": ((0.0,) * channels, (1.0 / 255.0,) * channels),
    }
    if channels == 3:
        common["ImageNet's mean and std"] = (IMAGENET_MEAN, IMAGENET_STD)
    for name, (mean, std) in common.items():
        if (mean, std) != (tuple(given.mean), tuple(given.std)):
            found[name] = Preparation(mean, std, given.device)
    return found


def surely_better(right: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> bool:
    """Are the `other` answers right so much more often than these, on the same rows [R], that it is no chance?"""
    gained, lost = int((other & ~right).sum()), int((right & ~other).sum())
    return gained - lost > SURE * float(np.sqrt(gained + lost))


def permutation_of(predicted: IntArray, labels: IntArray) -> dict[int, int]:
    """Label -> the class it is answered as, for labels that trade places among themselves; empty where none do."""
    moved: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        values, counts = np.unique(predicted[labels == label], return_counts=True)
        if counts.sum() >= FEW and 2 * counts.max() > counts.sum() and (guess := int(values[counts.argmax()])) != label:
            moved[label] = guess
    while moved and (lone := [label for label, guess in moved.items() if guess not in moved]):
        moved = {label: guess for label, guess in moved.items() if label not in lone}
    return moved if len(set(moved.values())) == len(moved) else {}


def require_steady(teacher: Teacher, views: Tensor) -> None:
    """Ask for views [B, ch, H, W] in one batch and in threes. Raises TeacherSuspectError where the answers differ:
    dropout, or batch norm over the batch, as in train mode; a row's soft labels would depend on its neighbours."""
    few = teacher.preparation(views[:STEADY_ROWS])
    once, _ = teacher.answer(few)
    parts = [teacher.answer(few[row : row + 3])[0] for row in range(0, len(few), 3)]
    usable = [c for c in range(once.shape[1]) if c not in teacher.masked_classes]
    together, apart = once[:, usable], torch.cat(parts)[:, usable]
    if not bool(torch.isfinite(together).all() and torch.isfinite(apart).all()):
        return  # refused when it is written, with the names of the samples
    spread = float((together - together.mean(dim=1, keepdim=True)).square().mean().sqrt())
    off = float((together - apart).square().mean().sqrt())
    if off > max(STEADY * spread, TINY):
        raise TeacherSuspectError(
            f"the teacher answers the same {len(few)} views otherwise in batches of 3 than in one batch: the logits "
            f"differ by {off:.2g}, their spread is {spread:.2g}; it seems to be in train mode: look for dropout that "
            "is always on (F.dropout without training=self.training), and for batch norm without running statistics"
        )
