"""Decoupled knowledge distillation (DKD) weighs the target's share and the other classes' shape apart."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOTH_LABELS, BY_LOGIT, Facts, NotNegative, Positive
from kdcache.objectives.hard import rows_over_labels
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import FLOOR, Targets, kl_rows


@dataclass(frozen=True)
class DKD(ByRows):
    """The objective is `T^2 (alpha KL(b || b') + beta KL(p^ || q^))`: b = (p_y, 1 - p_y) at T, p^ = p over all classes
    but the label y, renormalised; b' and q^ the student's. Logits [B, C].

    Zhao et al. 2022, in the ramp of their code: min((epoch + 1) / warmup_epochs, 1). Exact on full. On
    top-k the first term is exact (at T 1, 2, 4), since the label's logit is stored; of the second the head is exact,
    the tail by sketch, its shape by `tail`. Mixed pictures: both labels, weighted by lambda; rows without a label count
    as 0.

    Examples:
        >>> round(make_objective("dkd", {"beta": 2.0})(logits, batch).item(), 3)
        0.648
    """

    facts: ClassVar[Facts] = Facts(
        topk="target exact at T 1, 2, 4; others: head exact",
        mixing=BOTH_LABELS,
        tails=BY_LOGIT,
        w_ce=1.0,
        w_kd=1.0,
    )
    alpha: NotNegative = 1.0
    beta: NotNegative = 8.0
    temperature: Positive = 4.0
    warmup_epochs: NotNegative = 20.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_q = torch.log_softmax(outputs.logits / self.temperature, dim=-1)
        ramp = min((batch.epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0
        return (
            ramp * self.temperature**2 * rows_over_labels(batch, lambda y, which: self._rows(log_q, targets, y, which))
        )

    def _rows(self, log_q: Tensor, targets: Targets, y: Tensor, which: int) -> Tensor:
        log_p = targets.log_probs(self.temperature, labels=y, which=which)
        binary_p, rest_p = decouple(log_p, y)
        binary_q, rest_q = decouple(log_q, y)
        return self.alpha * kl_rows(binary_p, binary_q) + self.beta * kl_rows(rest_p, rest_q)


def decouple(log_p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Log of (p_y, 1 - p_y) [B, 2], and log-probabilities [B, C] of the other classes, renormalised, y at FLOOR."""
    rest = log_p.scatter(-1, y[..., None], FLOOR)
    log_mass = rest.logsumexp(dim=-1, keepdim=True)
    binary = torch.cat([log_p.gather(-1, y[..., None]), log_mass], dim=-1)
    return binary, torch.where(rest > FLOOR, rest - log_mass, FLOOR)
