"""Path consistency along the tokens of a text, with a teacher's log-probability of the taken token as the reward."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class PathConsistency:
    """(V(s) - V(s') - r + tau log pi(a | s))^2, the mean over the tokens a whose next state s' is in the same text.

    r = log pi_T(a | s) is the teacher's, which a store holds for the label. Logits [R, C] are values Q(s, .):
    V = tau logsumexp(Q / tau), log pi = (Q - V) / tau. Nachum et al. 2017, equation 15 at paths of one step without
    discount, and their unified form of section 5.1; the reward is Liu et al. 2025's. Exact on top-k: the label's
    probability is stored. Rows are tokens in the order of their texts, as an objective is given them.
    """

    facts: ClassVar[Facts] = Facts(topk=ANY_LOGITS, w_ce=0.5, w_kd=0.5, asks_at=(), couples=True)
    tau: Positive = 1.0

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits, labels, positions = outputs.logits, batch.y, batch.positions.to(outputs.logits.device)
        value = self.tau * torch.logsumexp(logits / self.tau, dim=-1)
        taken = logits.gather(-1, labels[:, None])[:, 0]  # V + tau log pi
        residual = taken[:-1] - targets.label_log_prob(1.0, labels)[:-1] - value[1:]
        goes_on = (positions[1:] == positions[:-1] + 1) & (positions[1:] % batch.images.shape[1] != 0)
        return residual[goes_on].square().sum() / goes_on.sum().clamp_min(1)
