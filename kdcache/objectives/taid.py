"""TAID moves its target from the student's own answer to the teacher's as training goes on."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import BY_CLASS, SKETCHED, Facts, OpenShare, Share
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, kl_rows


class TAID(nn.Module):
    """The objective is `KL(softmax((1 - t) s' + t z) || q)`: s' the student's logits [B, C] held constant, z the
    teacher's, at T = 1.

    Shing et al. 2025. t never falls: t = min(t_end, max(t_start + (t_end - t_start) progress,
    t + alpha sigmoid(m) (1 - t))), m the momentum (beta) of the loss's relative decrease. t, m and the last loss are
    state: checkpoints hold them. The entropy is included, where their code minimises a cross-entropy: the gradient is
    the same, the loss that steers t is not. Exact on full; on top-k the head is exact, the tail by sketch.

    Examples:
        >>> round(make_objective("taid")(logits, batch).item(), 3)
        0.013
    """

    facts: ClassVar[Facts] = Facts(
        topk=SKETCHED, tails=BY_CLASS, w_ce=0.0, w_kd=1.0, remembers=True, by_total=True, asks_at=()
    )

    def __init__(self, t_start: Share = 0.4, t_end: Share = 1.0, alpha: Share = 5e-4, beta: OpenShare = 0.99) -> None:
        super().__init__()
        if t_start > t_end:
            raise InvalidInputError(f"t_start is {t_start} and t_end is {t_end}: t grows; give t_start <= t_end")
        self.t_start, self.t_end, self.alpha, self.beta = t_start, t_end, alpha, beta
        self.register_buffer("t", torch.tensor(float(t_start)))
        self.register_buffer("momentum", torch.zeros(()))
        self.register_buffer("last", torch.tensor(torch.inf))

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits = outputs.logits
        t = self.get_buffer("t").to(logits.dtype)
        log_q = torch.log_softmax(logits, dim=-1)
        between = torch.log_softmax((1.0 - t) * log_q.detach() + t * targets.log_probs(1.0), dim=-1)
        loss = kl_rows(between, log_q).mean()
        if self.training:
            self._advance(loss.detach(), batch.progress)
        return loss

    @torch.no_grad()
    def _advance(self, loss: Tensor, progress: float) -> None:
        t, momentum, last = (self.get_buffer(name) for name in ("t", "momentum", "last"))
        decrease = torch.where(last.isfinite(), (last - loss) / (last + 1e-15), 0.0)
        new_momentum = torch.where(last.isfinite(), self.beta * momentum + (1.0 - self.beta) * decrease, momentum)
        new_t = torch.where(last.isfinite(), t + self.alpha * torch.sigmoid(new_momentum) * (1.0 - t), t)
        least_t = self.t_start + (self.t_end - self.t_start) * progress
        momentum.copy_(new_momentum)
        t.copy_(torch.where(last.isfinite(), new_t.clamp_min(least_t), new_t).clamp_max(self.t_end))
        last.copy_(loss)
