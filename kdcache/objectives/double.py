"""Double distillation: the teacher smooths both the classes to rank high and the classes to rank low."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BY_CLASS, SKETCHED, Facts
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class DoubleDistillation(ByRows):
    """The objective is `sum_y p_y log(1 + sum_{c != y} (1 - p_c) exp(s_c - s_y))`: the softmax cross-entropy, in which
    each class counts as positive by p and as negative by 1 - p; logits [B, C], p at T = 1.

    After Menon et al. 2020, section 5 (multiclass retrieval): their idea, in the softmax form; equal to cross-entropy
    for a one-hot teacher. Exact on full; on top-k the head is exact, the tail by sketch.

    Examples:
        >>> round(make_objective("double-distillation")(logits, batch).item(), 3)
        0.618
    """

    facts: ClassVar[Facts] = Facts(topk=SKETCHED, tails=BY_CLASS, w_ce=0.0, w_kd=1.0, asks_at=())

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits = outputs.logits
        log_p = targets.log_probs(1.0)
        p = log_p.exp()
        negatives = (logits + torch.log1p(-p.clamp_max(1.0))).logsumexp(dim=-1, keepdim=True)
        # y's own part of the sum is 1 - p_y; without it, 1 + sum_{c != y} is p_y + sum_c
        return (p * torch.logaddexp(log_p, negatives - logits)).sum(dim=-1)
