"""Logit regression: the student's logits are fitted to the teacher's by squared error."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.labels.spread import Spread
from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BY_LOGIT, Facts
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pieces import tempered
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class LogitMSE(ByRows):
    """The objective is `1/2 sum_c (s_c - mean(s) - t_c + mean(t))^2`, mean over rows: logits [B, C] up to a constant a
    row.

    Ba & Caruana 2014, centred, since a store keeps logits up to a constant; T^2 KD tends to it over C as T
    grows (Hinton et al. 2015, section 2.1). Exact on full. On top-k the tail's classes stand at the tail's mean logit
    (by sketch; `tail` class-mean: about it), which leaves out the tail's variance. Masked classes do not count.

    Examples:
        >>> round(make_objective("logit-mse")(logits, batch).item(), 3)
        0.333
    """

    facts: ClassVar[Facts] = Facts(
        topk="approximate: the tail at its mean logit", tails=BY_LOGIT, w_ce=0.0, w_kd=1.0, asks_at=(), sketch=True
    )

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits, target = outputs.logits, targets.logit_spread()
        if targets.masked:
            logits, target = targets.seen(logits), Spread.of(targets.seen(target.dense()))
        return targets.row_losses(_SquaredError(target.less_its_mean().flat()), logits)


@dataclass(frozen=True)
class _SquaredError:
    """1/2 the sum of squares of a row of logits, less its mean, less the target's; a `closed_form.RowLoss`.

    target: of mean 0, rows along one axis.
    """

    target: Spread

    def plain(self, logits: Tensor) -> Tensor:
        """The losses [R] of logits [R, C] for autograd."""
        difference = logits - logits.mean(dim=-1, keepdim=True) - self.target.dense()
        losses: Tensor = 0.5 * difference.square().sum(dim=-1)
        return losses

    def closed(self, logits: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """The losses [R], and their gradient: the difference itself."""
        logits = tempered(logits, tau)
        mean = logits.mean(dim=-1, keepdim=True)
        target = self.target.map(lambda values: values + mean)
        difference = logits - target.base
        if target.classes is not None and target.head is not None:
            difference.scatter_(-1, target.classes, logits.gather(-1, target.classes) - target.head)
        return 0.5 * torch.linalg.vector_norm(difference, dim=-1).square(), difference
