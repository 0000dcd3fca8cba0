"""Logit regression: the student's logits are fitted to the teacher's by squared error."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BY_LOGIT, Facts
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class LogitMSE(ByRows):
    """1/2 sum_c (s_c - mean(s) - t_c + mean(t))^2, mean over rows: logits [B, C] up to a constant a row.

    Ba & Caruana 2014, centred, since a store keeps logits up to a constant; T^2 KD tends to it over C as T
    grows (Hinton et al. 2015, section 2.1). Exact on full. On top-k the tail's classes stand at the tail's mean logit
    (by sketch; `tail` class-mean: about it), which leaves out the tail's variance. Masked classes do not count.
    """

    facts: ClassVar[Facts] = Facts(
        topk="approximate: the tail at its mean logit", tails=BY_LOGIT, w_ce=0.0, w_kd=1.0, asks_at=(), sketch=True
    )

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        difference = targets.seen(outputs.logits - targets.logits())
        return 0.5 * (difference - difference.mean(dim=-1, keepdim=True)).square().sum(dim=-1)
