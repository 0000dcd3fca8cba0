"""Adaptive KL weighs forward and reverse KL by where student and teacher differ."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BY_LOGIT, SKETCHED, Facts, OpenShare, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, kl_rows


@dataclass(frozen=True)
class AdaptiveKL(ByRows):
    """The objective is `T^2 (g_h KL(p || q) + g_t KL(q || p)) / (g_h + g_t)`: g_h, g_t the sums of |p_c - q_c| over the
    teacher's head (its best classes, the fewest that hold a mass of mu) and over the rest, constants for the gradient.
    Logits [B, C].

    Wu et al. 2024; their code leaves the class that crosses mu to the rest, unless it is the best one. Exact on full;
    on top-k the head is exact, the tail by sketch: of equal tail classes the lower ids come first where the head
    reaches beyond the top k.

    Examples:
        >>> round(make_objective("adaptive-kl")(logits, batch).item(), 3)
        0.075
    """

    facts: ClassVar[Facts] = Facts(topk=SKETCHED, tails=BY_LOGIT, w_ce=0.0, w_kd=1.0, zeros=False)
    mu: OpenShare = 0.5
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_q = torch.log_softmax(outputs.logits / self.temperature, dim=-1)
        log_p = targets.log_probs(self.temperature)
        share = self._head_share(log_p.exp(), log_q.detach().exp())
        rows = share * kl_rows(log_p, log_q) + (1.0 - share) * kl_rows(log_q, log_p)
        return self.temperature**2 * rows

    def _head_share(self, p: Tensor, q: Tensor) -> Tensor:
        """g_h / (g_h + g_t) [B]; 1/2 where the two agree everywhere."""
        sorted_p, classes = p.sort(dim=-1, descending=True, stable=True)
        mass_before = sorted_p.cumsum(dim=-1) - sorted_p
        gaps = (sorted_p - q.gather(-1, classes)).abs()
        head, total = (gaps * (mass_before < self.mu)).sum(dim=-1), gaps.sum(dim=-1)
        return torch.where(total > 0, head / total, 0.5)
