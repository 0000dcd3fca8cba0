"""Students, teachers and labels for measures: rows whose probabilities are given, and random ones.

Shape letters: B rows, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import centre, reduce_topk
from kdcache.labels.soft_labels import SoftLabels
from kdcache.labels.topk_labels import TopKLabels, read_topk
from kdcache.measures.facts import Value
from kdcache.measures.tally import Tally

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Random rows: a student, a teacher who half agrees with it, hard labels (some -1), decisions of a baseline."""

    logits: Tensor
    teacher: Array
    hard: Tensor
    baseline: Tensor

    @property
    def q(self) -> Array:
        return np.asarray(self.logits.softmax(dim=-1).numpy())

    @property
    def p(self) -> Array:
        return np.asarray(torch.from_numpy(self.teacher).softmax(dim=-1).numpy())

    @property
    def known(self) -> Array:
        """[B] True where there is a hard label."""
        return np.asarray(self.hard.numpy() >= 0)

    @property
    def y(self) -> Array:
        """Hard labels of the rows that have one."""
        return np.asarray(self.hard.numpy()[self.known])


def random_case(rows: int = 300, classes: int = 12, seed: int = 1) -> Case:
    """f64 logits, so that a library agrees to the last digits."""
    rng = np.random.RandomState(seed)
    teacher = rng.normal(0, 2.5, (rows, classes))
    logits = 0.8 * teacher + rng.normal(0, 1.2, (rows, classes))
    hard = np.where(rng.rand(rows) < 0.6, teacher.argmax(axis=1), rng.randint(0, classes, rows))
    hard[rng.rand(rows) < 0.1] = -1
    baseline = np.where(rng.rand(rows) < 0.7, logits.argmax(axis=1), rng.randint(0, classes, rows))
    return Case(torch.from_numpy(logits), teacher, torch.from_numpy(hard), torch.from_numpy(baseline))


def full_teacher(logits: Array, masked: tuple[int, ...] = ()) -> FullLabels:
    """Soft labels of logits [B, C] that hold all of them, not rounded."""
    return FullLabels(centre(logits, masked), np.full(len(logits), np.nan), logits.shape[1], masked)


def topk_teacher(logits: Array, k: int, masked: tuple[int, ...] = ()) -> TopKLabels:
    """The k best of logits [B, C] with the tail's sketch, not rounded."""
    rows = reduce_topk(logits, np.full((len(logits), 1), -1), k, masked)
    return read_topk(rows, logits.shape[1], masked)


def logs(probabilities: Sequence[Sequence[float]]) -> Tensor:
    """Logits [B, C] in f64 of which these are the softmax."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def teacher_of(probabilities: Sequence[Sequence[float]]) -> FullLabels:
    """Full soft labels with these probabilities [B, C]."""
    return full_teacher(logs(probabilities).numpy())


def measured(
    logits: Tensor,
    soft: SoftLabels | None = None,
    hard: Sequence[int] | Tensor | None = None,
    baseline: Sequence[int] | Tensor | None = None,
    **settings: Any,
) -> dict[str, Value]:
    """The results of one batch."""
    tally = Tally(**settings)
    hard, baseline = (None if ids is None else torch.as_tensor(ids) for ids in (hard, baseline))
    tally.update(logits, soft, hard, baseline=baseline)
    return tally.result()


def figures(*arguments: Any, **settings: Any) -> dict[str, float]:
    """The values of `measured`."""
    return {name: value.value for name, value in measured(*arguments, **settings).items()}
