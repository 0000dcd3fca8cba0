"""Curriculum temperature (CTKD) is KD whose temperature is learned against the student."""

from math import cos, pi
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import BOUNDED, Facts, NotNegative, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.row_means import mean_of_rows
from kdcache.objectives.targets import Targets


class CTKD(nn.Module):
    """The objective is `T^2 KL(p_T || q_T)` with T = 1 + span sigmoid(theta): theta climbs where the student descends.

    Li et al. 2023 (global temperature): the gradient of theta is reversed and scaled by lambda, which
    grows from 0 to 1 along a cosine over `loops` epochs. theta begins at 1, is trained by the student's optimiser and
    kept in checkpoints. Exact on full; on top-k the head is exact, the tail by sketch. Logits [B, C].

    Examples:
        >>> round(make_objective("ctkd")(logits, batch).item(), 3)
        0.162
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, asks_at=(), sketch=True)  # its T is above 1 always

    def __init__(self, span: Positive = 20.0, loops: NotNegative = 10.0) -> None:
        super().__init__()
        self.span, self.loops = span, loops
        self.theta = nn.Parameter(torch.ones(1))

    @property
    def temperature(self) -> Tensor:
        """T now, without axes."""
        return 1.0 + self.span * torch.sigmoid(self.theta[0])

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return mean_of_rows(self.rows(outputs, targets, batch), batch)

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        """The loss of each row [B] in nats."""
        logits = outputs.logits
        temperature = 1.0 + self.span * torch.sigmoid(reversed_gradient(self.theta[0], self._strength(batch.epoch)))
        temperature = temperature.to(logits.dtype)
        log_q = torch.log_softmax(logits / temperature, dim=-1)
        return temperature**2 * targets.kl(log_q, temperature)

    def _strength(self, epoch: int) -> float:
        progress = min((epoch + 1) / self.loops, 1.0) if self.loops else 1.0
        return 0.5 * (1.0 - cos(pi * progress))


def reversed_gradient(value: Tensor, strength: float) -> Tensor:
    """The value itself, with its gradient times -strength (Ganin & Lempitsky 2015)."""
    return (1.0 + strength) * value.detach() - strength * value
