"""DIST compares by correlations instead of divergences: over the classes of a row, and over the rows of a class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import BY_CLASS, SKETCHED, Facts, NotNegative, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets

EPSILON = 1e-8  # as in the authors' code


@dataclass(frozen=True)
class DIST:
    """The objective is `T^2 (beta (1 - mean_b r(p_b, q_b)) + gamma (1 - mean_c r(p_c, q_c)))`: r Pearson's correlation,
    of the rows and of the columns of the tempered probabilities [B, C].

    Huang et al. 2022; beta, gamma and T as in their code. Rows of a batch meet in the second term:
    it depends on the batch size. Exact on full; on top-k the head is exact, the tail by sketch, its shape by `tail`.

    Examples:
        >>> round(make_objective("dist")(logits, batch).item(), 3)
        0.782
    """

    facts: ClassVar[Facts] = Facts(topk=SKETCHED, tails=BY_CLASS, w_ce=1.0, w_kd=1.0, couples=True)
    beta: NotNegative = 1.0
    gamma: NotNegative = 1.0
    temperature: Positive = 1.0

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        q = torch.softmax(outputs.logits / self.temperature, dim=-1).flatten(0, -2)
        p = targets.log_probs(self.temperature).exp().flatten(0, -2)
        rows = 1.0 - correlation(p, q).mean()
        columns = 1.0 - correlation(p.T, q.T).mean()
        return self.temperature**2 * (self.beta * rows + self.gamma * columns)


def correlation(left: Tensor, right: Tensor) -> Tensor:
    """Pearson's correlation [R] of the rows of two matrices [R, N]; 0 for a constant row."""
    left = left - left.mean(dim=-1, keepdim=True)
    right = right - right.mean(dim=-1, keepdim=True)
    norms = torch.linalg.vector_norm(left, dim=-1) * torch.linalg.vector_norm(right, dim=-1)
    r: Tensor = (left * right).sum(dim=-1) / (norms + EPSILON)
    return r
