"""Knowledge distillation: Hinton, Vinyals & Dean 2015, section 2.

    loss = w_ce CE(y, s) + w_kd T^2 KL(p_T || q_T),   p_T, q_T = softmax of teacher and student logits over T

Exact on `full` stores. On `topk`: the head exactly, the tail's mass by the sketch, its shape uniform (or dropped). No
[B, C] target is built: with n tail classes the tail costs two sums over the student's log-probabilities. Shape letters:
B rows, K kept classes, C classes.
"""

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.loader import Batch
from kdcache.objectives.hard import hard_cross_entropy
from kdcache.softlabels import FullLabels, SoftLabels, Tail, TopKLabels

Combine = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class KD:
    """KD with one teacher or an ensemble.

    temperature: 1 or more on topk. tail: "uniform" or "none" (renormalised). combine: how an ensemble's members become
    one teacher, by the weighted mean of their tempered probabilities, or of their tempered log-probabilities
    (renormalised, the same as averaging logits). weights: one a store, equal by default.
    """

    w_ce: float = 0.1
    w_kd: float = 0.9
    temperature: float = 4.0
    tail: Tail = "uniform"
    combine: Combine = "probabilities"
    weights: tuple[float, ...] = ()

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Scalar loss in nats, mean over the rows; logits [B, C] of the student."""
        loss = logits.new_zeros(())
        if self.w_ce:
            loss = loss + self.w_ce * hard_cross_entropy(logits, batch)
        if self.w_kd:
            loss = loss + self.w_kd * self.temperature**2 * self.divergence(logits, batch.teachers)
        return loss

    def divergence(self, logits: Tensor, teachers: tuple[SoftLabels, ...]) -> Tensor:
        """Mean KL(p_T || q_T) over rows, without the factor T^2."""
        if not teachers:
            raise InvalidInputError("KD needs a store: the batch has no teacher; give --store, or set w_kd to 0")
        log_q = torch.log_softmax(logits / self.temperature, dim=-1)
        if len(teachers) > 1:
            log_p = combined_log_probs(teachers, self.temperature, self.tail, self.combine, self.weights)
            return dense_kl(log_p, log_q)
        if isinstance(teachers[0], FullLabels):
            return dense_kl(teachers[0].log_probs(self.temperature), log_q)
        return topk_kl(teachers[0], log_q, self.temperature, self.tail)


def dense_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Mean over rows of sum_c p_c (log p_c - log q_c); log_p and log_q [B, C], p = 0 contributes 0."""
    p = log_p.exp()
    rows: Tensor = (torch.where(p > 0, p * log_p, 0.0) - torch.where(p > 0, p * log_q, 0.0)).sum(dim=-1)
    return rows.mean()


def topk_kl(teacher: TopKLabels, log_q: Tensor, temperature: float, tail: Tail) -> Tensor:
    """Mean KL from top-k soft labels to log_q [B, C], without a [B, C] target.

    With head h, tail classes t (n of them) and tail mass m: sum_h p (log p - log q) + m (log m/n - mean_t log q).
    """
    log_p = teacher.log_probs(temperature).to(log_q.dtype)
    log_q_head = log_q.gather(-1, teacher.classes)
    if tail == "none":
        log_p = log_p - log_p.logsumexp(dim=-1, keepdim=True)
    head: Tensor = (log_p.exp() * (log_p - log_q_head)).sum(dim=-1)
    if tail == "none" or teacher.tail_classes == 0:
        return head.mean()
    n = teacher.tail_classes
    log_m = (teacher.tail_log_mass(temperature) - teacher.log_normalizer(temperature)).to(log_q.dtype)
    everything = log_q.sum(dim=-1) - log_q_head.sum(dim=-1)
    if teacher.masked:
        everything = everything - log_q[..., list(teacher.masked)].sum(dim=-1)
    rest = log_m.exp() * (log_m - log(n) - everything / n)
    total: Tensor = head + rest
    return total.mean()


def combined_log_probs(
    teachers: tuple[SoftLabels, ...], temperature: float, tail: Tail, combine: Combine, weights: tuple[float, ...]
) -> Tensor:
    """[B, C] log-probabilities of an ensemble at T. Raises InvalidInputError where weights do not fit the members."""
    shares = normalised_weights(weights, len(teachers))
    if combine == "logits" and tail == "none":
        raise InvalidInputError(
            "combine logits needs a tail: without one, classes outside any member's top k have no logit"
        )
    dense = [teacher.dense(temperature, tail=tail) for teacher in teachers]
    if combine == "probabilities":
        mean: Tensor = sum(share * p for share, p in zip(shares, dense, strict=True))
        return mean.log()
    logs: Tensor = sum(share * p.log() for share, p in zip(shares, dense, strict=True) if share)  # 0 x -inf is NaN
    return torch.log_softmax(logs, dim=-1)


def normalised_weights(weights: tuple[float, ...], members: int) -> tuple[float, ...]:
    """Weights that sum to 1, equal where none are given."""
    chosen = weights or (1.0,) * members
    if len(chosen) != members or min(chosen) < 0 or sum(chosen) <= 0:
        raise InvalidInputError(
            f"ensemble weights {chosen} do not fit {members} stores; give one at or above 0 for each"
        )
    return tuple(weight / sum(chosen) for weight in chosen)
