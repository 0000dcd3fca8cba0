"""A top-k teacher rebuilt densely in float64 from what its store holds: the head, the sketch, a tail's shape.

Nothing of kdcache is in here. Shape letters: N rows, K kept classes, C classes.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

SLACK = 1 / 32  # a kept logit may be off by half a step of 1/16 nat


def tail_lse(sketch: Any, last: Any, n: int, temperature: Any) -> Any:
    """[N] log sum exp(z / T) over n tail logits, T a number or [N]: the cubic in b = 1/T through log n and the sketch
    [N, 3] of T = 1, 2, 4, kept to what a convex function with no slope above the last kept logit can be."""
    if n == 1:
        return sketch[:, 0] / temperature
    b = np.broadcast_to(1.0 / np.asarray(temperature), last.shape)
    nodes = [0.0, 0.25, 0.5, 1.0]
    values = np.stack([np.full(len(sketch), math.log(n)), sketch[:, 2], sketch[:, 1], sketch[:, 0]])
    coefficients = np.linalg.solve(np.vander(nodes, increasing=True), values)
    found = sum(coefficients[power] * b**power for power in range(4))
    low, high = values[3] + (last + SLACK) * (b - 1.0), values[0] + (last + SLACK) * b
    for i in range(3):
        chord = values[i] + (values[i + 1] - values[i]) / (nodes[i + 1] - nodes[i]) * (b - nodes[i])
        inside = (nodes[i] <= b) & (b <= nodes[i + 1])
        high = np.where(inside, np.minimum(high, chord), high)
        low = np.where(inside, low, np.maximum(low, chord))
    return np.minimum(np.maximum(found, low), high)


def tail_mean_and_variance(sketch: Any, last: Any, n: int) -> tuple[Any, Any]:
    """[N] slope and curvature at 0 of the same cubic, from its coefficients in powers of b."""
    if n == 1:
        return sketch[:, 0], np.zeros(len(sketch))
    values = np.stack([sketch[:, 2], sketch[:, 1], sketch[:, 0]]) - math.log(n)
    powers = np.array([[b, b**2, b**3] for b in (0.25, 0.5, 1.0)])
    first, second, _ = np.linalg.solve(powers, values)
    return np.minimum(first, last + SLACK), np.maximum(2.0 * second, 0.0)


@dataclass(frozen=True)
class Rebuilt:
    """A teacher as `dense_teacher.Teacher`. All arrays are f64: classes [N, K], head [N, K], sketch [N, 3], label [N]
    or [N, 2]; means [C] where the tail is shaped by class means."""

    classes: Tensor
    head: Tensor
    sketch: Tensor
    label: Tensor
    num_classes: int
    masked: tuple[int, ...]
    means: Tensor | None
    tail: Literal["uniform", "class-mean", "none"]

    @property
    def visible(self) -> Tensor:
        seen = torch.ones(self.num_classes, dtype=torch.bool)
        seen[list(self.masked)] = False
        return seen

    @property
    def in_tail(self) -> Tensor:
        return self.visible.expand(len(self.head), -1).scatter(-1, self.classes, False)

    @property
    def n(self) -> int:
        return int(self.in_tail[0].sum())

    def _mass(self, temperature: Any) -> Tensor:
        """[N] log of the tail's sum at T, for one T or one a row."""
        each = temperature.numpy() if isinstance(temperature, Tensor) else temperature
        return torch.from_numpy(tail_lse(self.sketch.numpy(), self.head[:, -1].numpy(), self.n, each))

    def _scores(self, temperature: Any) -> Tensor:
        """[N, C] logs whose softmax within the tail shares out its mass."""
        column = temperature[:, None] if isinstance(temperature, Tensor) and temperature.ndim else temperature
        shape = torch.zeros(len(self.head), self.num_classes, dtype=torch.float64)
        if self.tail == "class-mean":
            assert self.means is not None
            shape = shape + self.means / column
        return torch.where(self.in_tail, shape, -torch.inf)

    def _log_z(self, temperature: Any) -> Tensor:
        column = temperature[:, None] if isinstance(temperature, Tensor) and temperature.ndim else temperature
        if not self.n:
            return (self.head / column).logsumexp(dim=-1)
        return torch.cat([self.head / column, self._mass(temperature)[:, None]], dim=-1).logsumexp(dim=-1)

    def log_p(self, temperature: Any, y: Tensor | None = None, which: int = 0) -> Tensor:
        """A temperature for each row is taken at 1 where it is below: the sketch says nothing there."""
        if isinstance(temperature, Tensor) and temperature.ndim:
            temperature = temperature.clamp_min(1.0)
        column = temperature[:, None] if isinstance(temperature, Tensor) and temperature.ndim else temperature
        head = self.head / column
        empty = torch.full((len(head), self.num_classes), -torch.inf, dtype=torch.float64)
        if self.tail == "none" or not self.n:
            return empty.scatter(-1, self.classes, torch.log_softmax(head, dim=-1))
        log_z = self._log_z(temperature)[:, None]
        mass, scores = self._mass(temperature)[:, None] - log_z, self._scores(temperature)
        log_p = (mass + torch.log_softmax(scores, dim=-1)).scatter(-1, self.classes, head - log_z)
        return log_p if y is None else self._with_label(log_p, mass, scores, temperature, y, which)

    def _with_label(
        self, log_p: Tensor, mass: Tensor, scores: Tensor, temperature: Any, y: Tensor, which: int
    ) -> Tensor:
        """The label's own probability where it lies in the tail; the others there share what the tail has left."""
        own = self.label_log_p(temperature, y, which)
        fitted = log_p.clone()
        for row in range(len(log_p)):
            label = int(y[row])
            if not self.in_tail[row, label] or not own[row].isfinite():
                continue
            others = scores[row].clone()
            others[label] = -torch.inf
            left = mass[row, 0].exp() - own[row].exp()
            assert left > 0
            shared = left.log() + torch.log_softmax(others, dim=-1)
            fitted[row] = torch.where(others.isfinite(), shared, log_p[row])
            fitted[row, label] = own[row]
        return fitted

    def label_log_p(self, temperature: Any, y: Tensor, which: int = 0) -> Tensor:
        stored = self.label[:, which] if self.label.ndim == 2 else self.label
        return stored / temperature - self._log_z(temperature)

    def log_power_sum(self, temperature: float) -> Tensor:
        return self._log_z(temperature) - self._log_z(1.0) / temperature

    def logits(self) -> Tensor:
        """Tail classes at the tail's mean, or about it as their class means have it."""
        mean = torch.from_numpy(tail_mean_and_variance(self.sketch.numpy(), self.head[:, -1].numpy(), self.n)[0])
        shape = torch.zeros(len(self.head), self.num_classes, dtype=torch.float64)
        if self.tail == "class-mean":
            assert self.means is not None
            shape = shape + self.means
        shape = shape - (shape * self.in_tail).sum(dim=-1, keepdim=True) / self.n
        return (shape + mean[:, None]).scatter(-1, self.classes, self.head)

    def scale(self) -> Tensor:
        """Standard deviation (n - 1) over all classes, from the head and the tail's mean and variance."""
        parts = tail_mean_and_variance(self.sketch.numpy(), self.head[:, -1].numpy(), self.n)
        mean, variance = (torch.from_numpy(np.asarray(part)) for part in parts)
        total = self.n + self.head.shape[-1]
        centre = (self.head.sum(dim=-1) + self.n * mean) / total
        squares = (self.head - centre[:, None]).square().sum(dim=-1) + self.n * ((mean - centre).square() + variance)
        return (squares / (total - 1)).sqrt()

    def best(self, k: int, temperature: float) -> tuple[Tensor, Tensor]:
        head = self.head / temperature - self._log_z(temperature)[:, None]
        return self.classes[:, :k], head[:, :k]


def rebuilt(soft: Any, tail: Any) -> Rebuilt:
    """From the fields of stored top-k labels (tensors)."""
    means = None if soft.class_means is None else soft.class_means.double()
    arrays = (soft.logits.double(), soft.tail.double(), soft.label.double())
    return Rebuilt(soft.classes.long(), *arrays, soft.num_classes, soft.masked, means, tail)
