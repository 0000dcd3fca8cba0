"""Regularisers that need no teacher: distillation is measured against them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOTH_LABELS, Facts, NotNegative, Share
from kdcache.objectives.hard import hard_rows
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class LabelSmoothing(ByRows):
    """The objective is `(1 - epsilon) CE(y, q) + epsilon mean_c(-log q_c)`: cross-entropy with smoothed labels, logits
    [B, C].

    Szegedy et al. 2016, section 7. It is a whole loss: w_ce is 0 by default. Rows without a label (-1) keep the second
    part. Needs no store; mixed pictures count both labels with lambda.

    Examples:
        >>> round(make_objective("label-smoothing", {"epsilon": 0.1})(logits, batch).item(), 3)
        0.701
    """

    facts: ClassVar[Facts] = Facts(topk="exact", mixing=BOTH_LABELS, w_ce=0.0, w_kd=1.0, teacher=False, asks_at=())
    epsilon: Share = 0.1

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits = outputs.class_logits
        uniform = -torch.log_softmax(logits, dim=-1).mean(dim=-1)
        return (1.0 - self.epsilon) * hard_rows(logits, batch) + self.epsilon * uniform


@dataclass(frozen=True)
class ConfidencePenalty(ByRows):
    """The objective is `-beta H(q) = beta sum_c q_c log q_c`, beside the cross-entropy with hard labels; logits [B, C].

    Pereyra et al. 2017, section 3. Needs no store; mixed pictures: the entropy of the answer to the mixed one.

    Examples:
        >>> round(make_objective("confidence-penalty", {"beta": 0.1})(logits, batch).item(), 3)
        0.542
    """

    facts: ClassVar[Facts] = Facts(
        topk="exact", mixing="mixed answer of the student", w_ce=1.0, w_kd=1.0, teacher=False, asks_at=()
    )
    beta: NotNegative = 0.1

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_q = torch.log_softmax(outputs.class_logits, dim=-1)
        return self.beta * (log_q.exp() * log_q).sum(dim=-1)
