"""Normalised knowledge distillation (NKD) adds two cross-entropies: the target's, and the normalised other classes'."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.dkd import decouple
from kdcache.objectives.facts import BOTH_LABELS, BY_LOGIT, Facts, NotNegative, Positive
from kdcache.objectives.hard import rows_over_labels
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class NKD(ByRows):
    """The objective is `-p_y log q_y - gamma T^2 sum_{c != y} p^_c log q^_c`: p_y, q_y at temperature 1; p^, q^ over
    all classes but the label y at T, renormalised. Logits [B, C].

    Yang et al. 2023: cross-entropies, without the teacher's entropy, so a student that agrees does not
    have loss 0. Exact on full. On top-k the first term is exact; of the second the head is exact, the tail by sketch.
    Mixed pictures: both labels, weighted by lambda; rows without a label count as 0.

    Examples:
        >>> round(make_objective("nkd", {"gamma": 1.5})(logits, batch).item(), 3)
        1.533
    """

    facts: ClassVar[Facts] = Facts(
        topk="target exact; others: head exact",
        mixing=BOTH_LABELS,
        tails=BY_LOGIT,
        w_ce=1.0,
        w_kd=1.0,
    )
    gamma: NotNegative = 1.5
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return rows_over_labels(batch, lambda y, which: self._rows(outputs.logits, targets, y, which))

    def _rows(self, logits: Tensor, targets: Targets, y: Tensor, which: int) -> Tensor:
        log_p_y = targets.label_log_prob(1.0, y, which)
        p_y = torch.where(log_p_y.isfinite(), log_p_y, -torch.inf).exp()
        log_q_y = torch.log_softmax(logits, dim=-1).gather(-1, y[..., None])[..., 0]
        _, rest_p = decouple(targets.log_probs(self.temperature, labels=y, which=which), y)
        _, rest_q = decouple(torch.log_softmax(logits / self.temperature, dim=-1), y)
        rest = (rest_p.exp() * rest_q).sum(dim=-1)
        return -p_y * log_q_y - self.gamma * self.temperature**2 * rest
