"""Cases for objectives that see taps: random taps of a student (f64) and of stores (f16), labels, heads, negatives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.objectives.batch import Batch, Negatives
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.maps import vectors
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import Head, Shape, Sizes, TeacherSizes
from tests.kits.labels import batch_of, full_labels

CLASSES, VIEW_ROWS, NEGATIVES = 5, 40, 9
FEATURES = "features"


@dataclass(frozen=True)
class TapCase:
    """Shapes of one row of the student's layers and of each store's taps, by name; and the settings of an objective."""

    student: dict[str, Shape]
    teachers: tuple[dict[str, Shape], ...]
    settings: dict[str, Any] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    mixed: bool = False
    masked: tuple[int, ...] = ()
    last: str = "a"
    rows: int = 5
    seed: int = 0

    def random(self, purpose: int, *shape: int) -> Tensor:
        """Numbers f64 of deviation 1, equal for an equal purpose."""
        generator = np.random.RandomState(1000 * self.seed + purpose)
        return torch.from_numpy(generator.normal(size=shape))

    @property
    def heads(self) -> list[Head]:
        """A classifier of each store, of as many features as it keeps, or its first tap has channels."""
        widths = [placed_shape(taps.get(FEATURES, next(iter(taps.values()))))[0] for taps in self.teachers]
        return [
            Head(self.random(500 + n, CLASSES, width).float(), self.random(600 + n, CLASSES).float())
            for n, width in enumerate(widths)
        ]

    @property
    def sizes(self) -> Sizes:
        teachers = [
            TeacherSizes(f"store-{n}", taps, head, self.masked)
            for n, (taps, head) in enumerate(zip(self.teachers, self.heads, strict=True))
        ]
        return Sizes(self.student, self.last, tuple(teachers), self.weights, CLASSES, VIEW_ROWS)

    @property
    def outputs(self) -> Outputs:
        """Outputs in f64 whose taps want gradients; a name with a size is a tap of its own."""
        taps = {name: self.random(n, self.rows, *shape) for n, (name, shape) in enumerate(self.student.items())}
        for values in taps.values():
            values.requires_grad_()
        return Outputs(self.random(99, self.rows, CLASSES), taps.pop(FEATURES, None), taps)

    @property
    def batch(self) -> Batch:
        """A batch with the taps of each store, soft labels of its head on the first one's mean, labels of which one is
        missing, and negatives."""
        y = torch.tensor([0, 1, 1, -1, 4, 2, 0, 3][: self.rows])
        taps = [
            {
                name: self.random(100 + 10 * n + m, self.rows, *shape).half()
                for m, (name, shape) in enumerate(of.items())
            }
            for n, of in enumerate(self.teachers)
        ]
        first = [next(iter(of.values())) for of in taps]
        features = tuple(of.pop(FEATURES) for of in taps) if all(FEATURES in of for of in taps) else ()
        soft = [full_labels(logits.numpy(), y.numpy()) for logits in self._logits(features or first)]
        mix: dict[str, Any] = {}
        if self.mixed:
            lam = torch.tensor([0.7, 0.25, 1.0, 0.5, 0.9, 0.6, 0.1, 0.3][: self.rows])
            mix = {"y2": torch.tensor([1, 1, 3, 0, -1, 4, 4, 2][: self.rows]), "lam": lam}
        return batch_of(*soft, y=y, taps=tuple(taps), features=features, negatives=self._negatives, **mix)

    def _logits(self, taps: Sequence[Tensor]) -> list[Tensor]:
        heads = zip(self.heads, taps, strict=True)
        return [vectors(tap.float()) @ head.weight.T + head.bias for head, tap in heads]

    @property
    def _negatives(self) -> Negatives | None:
        if not all(FEATURES in taps for taps in self.teachers):
            return None
        features = [self.random(300 + n, NEGATIVES, taps[FEATURES][0]).half() for n, taps in enumerate(self.teachers)]
        y = torch.tensor([0, 1, 2, 3, 4, -1, 0, 1, 2])
        return Negatives(torch.arange(3, 3 + NEGATIVES), y, tuple(features))

    def objective(self, name: str, **settings: Any) -> Objective:
        """The objective in f64, of equal weights each time, fitted where it must be."""
        torch.manual_seed(self.seed)
        objective = make_objective(name, {**self.settings, **settings}, sizes=self.sizes, weights=self.weights).double()
        assert isinstance(objective, Objective)
        return fitted(objective, [(self.outputs, self.batch)])


def fitted(objective: Objective, pairs: list[tuple[Outputs, Batch]]) -> Objective:
    """The objective, fitted on these batches where it fits anything."""
    fit = getattr(objective.term, "fit", None)
    if fit is not None:
        fit(pairs)
    return objective


def term_of(objective: Objective) -> nn.Module:
    """The term as a module."""
    assert isinstance(objective.term, nn.Module)
    return objective.term


def term_loss(objective: Objective, outputs: Outputs, batch: Batch) -> Tensor:
    """The term alone, without weights and hard labels."""
    value: Tensor = objective._term_loss(outputs, batch, {})
    return value


def leaves(objective: Objective, outputs: Outputs) -> dict[str, Tensor]:
    """What a training changes: the student's taps by name, and parameters of the term by theirs after a dot."""
    taps = {**outputs.taps, **({} if outputs.features is None else {FEATURES: outputs.features})}
    return {**taps, **{f".{name}": value for name, value in term_of(objective).named_parameters()}}
