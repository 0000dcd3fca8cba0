"""Pseudo-teachers keep one part of a teacher's knowledge each: Tang et al. 2020, section 4."""

from dataclasses import dataclass, replace
from math import log
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import ALL_TAILS, BOTH_LABELS, FULL_SUPPORT, Facts, Positive
from kdcache.objectives.hard import rows_over_labels
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.row_means import mean_of_rows
from kdcache.objectives.targets import FLOOR, Targets, kl_rows


@dataclass(frozen=True)
class KDPartial(ByRows):
    """The objective is `T^2 KL(p' || q_T)`: p' has the teacher's probability of the hard label, its other classes share
    the rest evenly.

    KD-pt, Tang et al. 2020: the part of KD that rescales the gradient by the teacher's confidence. Logits [B, C]. Exact
    on full; on top-k, which stores the label's logit, exact at T 1, 2, 4, also for the mean probabilities of several
    stores; on draws, beside which the label's probability is stored, exact at theirs. Mixed pictures: both labels,
    weighted by lambda.

    Examples:
        >>> round(make_objective("kd-pt")(logits, batch).item(), 3)
        0.159
    """

    facts: ClassVar[Facts] = Facts(
        topk="exact at T 1, 2, 4, else by sketch", mixing=BOTH_LABELS, tails=FULL_SUPPORT, by_kl=True
    )
    temperature: Positive = 4.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_q = torch.log_softmax(outputs.logits / self.temperature, dim=-1)
        return self.temperature**2 * rows_over_labels(batch, lambda y, which: self._rows(log_q, targets, y, which))

    def _rows(self, log_q: Tensor, targets: Targets, y: Tensor, which: int) -> Tensor:
        visible_q = targets.seen(log_q)
        rest_classes = visible_q.shape[-1] - 1
        log_p_y = targets.label_log_prob(self.temperature, y, which)
        has_label = log_p_y.isfinite()
        p_y = torch.where(has_label, log_p_y, 0.0).exp()
        rest = 1.0 - p_y
        log_q_y = log_q.gather(-1, y[..., None])[..., 0]
        mean_rest = (visible_q.sum(dim=-1) - log_q_y) / rest_classes
        negative_entropy = torch.xlogy(p_y, p_y) + torch.xlogy(rest, rest) - rest * log(rest_classes)
        return torch.where(has_label, negative_entropy - p_y * log_q_y - rest * mean_rest, 0.0)


@dataclass(frozen=True)
class KDTopK(ByRows):
    """The objective is `T^2 KL(p' || q_T)`: p' has the teacher's probabilities of its k best classes, the others share
    the rest evenly.

    KD-topk, Tang et al. 2020: the ablation of k. Logits [B, C]. Exact on full; on top-k stores of k or more classes at
    T 1, 2, 4, else the mass of the rest is by sketch. The tail is uniform by definition. Of several teachers each keeps
    its own k best.

    Examples:
        >>> round(make_objective("kd-topk", {"k": 2})(logits, batch).item(), 3)
        0.157
    """

    facts: ClassVar[Facts] = Facts(topk="exact at T 1, 2, 4, else by sketch", tails=("uniform",), best="k", ranks=True)
    k: Annotated[int, Field(ge=1)] = 5
    temperature: Positive = 4.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        head, temperature = self._head(targets)
        return self.temperature**2 * head.kl_of_logits(outputs.logits, temperature, tau=self.temperature)

    def _head(self, targets: Targets) -> tuple[Targets, float]:
        """The k best classes, and the temperature at which to take them.

        Full logits are tempered here, before the rest is summed up: so its mass is exact at every temperature.
        """
        teachers, temperature = targets.teachers, self.temperature
        if targets.exact and targets.combine != "predictions":  # which are tempered after they were combined
            teachers = tuple(replace(teacher, logits=teacher.logits / temperature) for teacher in teachers)
            temperature = 1.0
        return replace(targets, teachers=tuple(teacher.prefix(self.k) for teacher in teachers)), temperature


class KDSim(nn.Module):
    """The objective is `T^2 KL(p' || q_T)`: p' = softmax(max(cos(w_y, w_c), 0)^alpha / beta) over classes c, w the rows
    of the teacher's classifier [C, D] and y the hard label: relations of classes alone, nothing of the picture.

    KD-sim, Tang et al. 2020, from their description; alpha and beta are ours, since theirs depend on the data set.
    Needs the store's head (extract --keep head); exact. Mixed pictures: both labels, weighted by lambda.

    Examples:
        >>> round(make_objective("kd-sim", head=head.weight)(logits, batch).item(), 3)
        0.168
    """

    facts: ClassVar[Facts] = Facts(  # temperature is the student's alone
        topk="exact", mixing=BOTH_LABELS, tails=ALL_TAILS, needs=("head",), asks_at=(), by_kl=True
    )

    def __init__(
        self, alpha: Positive = 1.0, beta: Positive = 0.3, temperature: Positive = 1.0, head: Tensor | None = None
    ) -> None:
        super().__init__()
        if head is None:
            raise InvalidInputError("kd-sim needs the teacher's classifier; extract with --keep head")
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.register_buffer("directions", nn.functional.normalize(head, dim=-1), persistent=False)

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return mean_of_rows(self.rows(outputs, targets, batch), batch)

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        """The loss of each row [B] in nats."""
        log_q = torch.log_softmax(outputs.logits / self.temperature, dim=-1)
        directions = self.get_buffer("directions").to(log_q.dtype)

        def divergence(y: Tensor, which: int) -> Tensor:
            likeness = (directions[y] @ directions.T).clamp_min(0.0) ** self.alpha / self.beta
            if targets.masked:
                likeness[..., list(targets.masked)] = FLOOR
            return kl_rows(torch.log_softmax(likeness, dim=-1), log_q)

        return self.temperature**2 * rows_over_labels(batch, divergence)
