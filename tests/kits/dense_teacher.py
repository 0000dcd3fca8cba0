"""What dense references share: a teacher of known logits, a case, KL and labels. Nothing of kdcache is in here.

Shape letters: N rows, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


class Teacher(Protocol):
    """What a reference may ask; `y` [N] are hard labels whose own probability is wanted as exactly as can be."""

    def log_p(self, temperature: Any, y: Tensor | None = None, which: int = 0) -> Tensor: ...
    def label_log_p(self, temperature: float, y: Tensor, which: int = 0) -> Tensor: ...
    def log_power_sum(self, temperature: float) -> Tensor: ...
    def logits(self) -> Tensor: ...
    def scale(self) -> Tensor: ...
    def best(self, k: int, temperature: float) -> tuple[Tensor, Tensor]: ...
    @property
    def visible(self) -> Tensor: ...


@dataclass(frozen=True)
class Dense:
    """A teacher whose logits z [N, C] are all known; -inf where a class is masked."""

    z: Tensor

    def log_p(self, temperature: Any, y: Tensor | None = None, which: int = 0) -> Tensor:
        column = temperature[:, None] if isinstance(temperature, Tensor) and temperature.ndim else temperature
        return torch.log_softmax(self.z / column, dim=-1)

    def label_log_p(self, temperature: float, y: Tensor, which: int = 0) -> Tensor:
        return self.log_p(temperature).gather(-1, y.clamp_min(0)[:, None])[:, 0]

    def log_power_sum(self, temperature: float) -> Tensor:
        return torch.log((torch.softmax(self.z, dim=-1) ** (1.0 / temperature)).sum(dim=-1))

    def logits(self) -> Tensor:
        return self.z

    def scale(self) -> Tensor:
        return self.z[:, self.visible].std(dim=-1)

    def best(self, k: int, temperature: float) -> tuple[Tensor, Tensor]:
        """Classes [N, k] and their log-probabilities."""
        classes = self.z.sort(dim=-1, descending=True, stable=True).indices[:, :k]
        return classes, self.log_p(temperature).gather(-1, classes)

    @property
    def visible(self) -> Tensor:
        return self.z[0].isfinite()


@dataclass(frozen=True)
class Case:
    """Hard labels [N] (-1: none), their partners and weights under mixing, the epoch, the term's settings."""

    y: Tensor
    y2: Tensor | None = None
    lam: Tensor | None = None
    epoch: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.settings[name]
        except KeyError as error:
            raise AttributeError(name) from error


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """sum p log(p / q) [N], 0 log 0 = 0."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)


def cross_entropy(log_q: Tensor, y: Tensor) -> Tensor:
    return -log_q.gather(-1, y[:, None])[:, 0]


def by_label(case: Case, rows: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Mean of lam rows(y) + (1 - lam) rows(y2) (Zhang et al. 2018: the loss is linear in the label)."""
    total = torch.where(case.y >= 0, rows(case.y.clamp_min(0), 0), 0.0)
    if case.y2 is not None:
        assert case.lam is not None
        second = torch.where(case.y2 >= 0, rows(case.y2.clamp_min(0), 1), 0.0)
        total = case.lam.double() * total + (1.0 - case.lam.double()) * second
    return total.mean()


def hard(s: Tensor, case: Case) -> Tensor:
    return by_label(case, lambda y, which: cross_entropy(torch.log_softmax(s, dim=-1), y))
