"""Multi-level logit distillation (MLLD) matches instances, batch and classes, each at several temperatures."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import BY_CLASS, SKETCHED, Facts, NotNegative, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, kl_rows


@dataclass(frozen=True)
class MLLD:
    """The objective is `sum_T [T^2 KL(p || q) + ||P P' - Q Q'||^2 / B + ||P' P - Q' Q||^2 / C]`: P, Q the tempered
    probabilities [B, C], the norms Frobenius's, T in `temperatures`.

    Jin et al. 2023: prediction augmentation with instance, batch and class level. Their pairs of
    weak and strong views and their confidence thresholds are not part of it. Rows of a batch meet: it depends on the
    batch size. Exact on full; on top-k the head is exact, the tail by sketch.

    Examples:
        >>> round(make_objective("mlld", {"temperatures": (2.0, 4.0)})(logits, batch).item(), 3)
        0.253
    """

    facts: ClassVar[Facts] = Facts(
        topk=SKETCHED, tails=BY_CLASS, w_ce=0.1, w_kd=0.9, couples=True, asks_at=("temperatures",)
    )
    temperatures: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2.0, 3.0, 4.0, 5.0, 6.0)
    w_batch: NotNegative = 1.0
    w_class: NotNegative = 1.0

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return torch.stack(
            [self._level(outputs.logits, targets, temperature) for temperature in self.temperatures]
        ).sum()

    def _level(self, logits: Tensor, targets: Targets, temperature: float) -> Tensor:
        log_q = torch.log_softmax(logits / temperature, dim=-1).flatten(0, -2)
        log_p = targets.log_probs(temperature).flatten(0, -2)
        p, q = log_p.exp(), log_q.exp()
        rows, classes = p.shape
        between_rows = (p @ p.T - q @ q.T).square().sum() / rows
        between_classes = (p.T @ p - q.T @ q).square().sum() / classes
        instances = temperature**2 * kl_rows(log_p, log_q).mean()
        return instances + self.w_batch * between_rows + self.w_class * between_classes
