"""Logit standardisation is KD on z-scores: only the ranking and the shape of the logits are matched."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BY_LOGIT, Facts, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets

EPSILON = 1e-7  # as in the authors' code


@dataclass(frozen=True)
class LogitStandardisation(ByRows):
    """The objective is `T^2 KL(softmax(Z(t) / T) || softmax(Z(s) / T))`, Z(z) = (z - mean(z)) / std(z) over a row's
    logits [B, C].

    Sun et al. 2024, with the unbiased std and the weights 1 and 9 of their code. Exact on full. On top-k
    the mean and the std of the tail are the sketch's slope and curvature at 1/T = 0, and rows with std T below 1 are
    taken at 1: approximate. Masked classes count in neither mean nor std.

    Examples:
        >>> round(make_objective("logit-standardisation")(logits, batch).item(), 3)
        1.145
    """

    facts: ClassVar[Facts] = Facts(
        topk="approximate: the tail's std by sketch", tails=BY_LOGIT, w_ce=1.0, w_kd=9.0, sketch=True
    )
    temperature: Positive = 2.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits = outputs.logits
        visible = targets.seen(logits)
        mean, std = visible.mean(dim=-1, keepdim=True), visible.std(dim=-1, keepdim=True)
        z_scores = (logits - mean) / (std + EPSILON)
        scale = (targets.deviation() + EPSILON) * self.temperature  # dividing by the std tempers each row by its own
        if not targets.exact:
            scale = scale.clamp_min(1.0)
        return self.temperature**2 * targets.kl_of_logits(z_scores, scale, tau=self.temperature)
