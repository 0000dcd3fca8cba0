"""KL from top-k soft labels without a [B, C] target: the head by its classes, the tail by one or two sums.

Shape letters: B any leading axes, K kept classes, C classes.
"""

from math import log

import torch
from torch import Tensor

from kdcache.softlabels import Tail, TopKLabels

LOG_ZERO = -1e5  # stands for log 0, see `targets.FLOOR`
HEAVY = 64


def topk_kl(teacher: TopKLabels, log_q: Tensor, temperature: float | Tensor, tail: Tail) -> Tensor:
    """KL(p_T || q) [B] to log_q [B, C]: sum over the head of p (log p - log q), and the tail's part by its shape.

    Equal to the dense form with the same tail; ghost: the KL of K + 1 outcomes, a lower bound of the full one.
    """
    log_p = teacher.log_probs(temperature)
    if tail == "none":
        log_p = log_p - log_p.logsumexp(dim=-1, keepdim=True)
    log_q_head = log_q.gather(-1, teacher.classes)
    head: Tensor = (log_p.exp() * (log_p - log_q_head)).sum(dim=-1)
    if tail == "none" or teacher.tail_classes == 0:
        return head
    log_m: Tensor = teacher.tail_log_prob(temperature)
    if tail == "ghost":
        return head + log_m.exp() * (log_m - _log_rest(teacher, log_q))
    if tail == "uniform":
        return head + log_m.exp() * (log_m - log(teacher.tail_classes) - _mean_of_tail(teacher, log_q, log_q_head))
    return head + _class_mean_part(teacher, log_q, log_q_head, temperature, log_m)


def ghost_pair(teacher: TopKLabels, log_q: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, K + 1] of teacher at T and student: the kept classes, then all others as one.

    Masked classes are one outcome more, [B, K + 2], whose probability is 0 for the teacher.
    """
    log_p = [teacher.log_probs(temperature), teacher.tail_log_prob(temperature)[..., None]]
    pair_q = [log_q.gather(-1, teacher.classes), _log_rest(teacher, log_q)[..., None]]
    if teacher.masked:
        log_p.append(torch.full_like(log_p[-1], LOG_ZERO))
        pair_q.append(log_q[..., list(teacher.masked)].logsumexp(dim=-1, keepdim=True))
    return torch.cat(log_p, dim=-1), torch.cat(pair_q, dim=-1)


def _log_rest(teacher: TopKLabels, log_q: Tensor) -> Tensor:
    """[B] log of the student's probability outside the head; masked classes are not in it."""
    outside = log_q.scatter(-1, teacher.classes, -torch.inf)
    if teacher.masked:
        outside[..., list(teacher.masked)] = -torch.inf
    return outside.logsumexp(dim=-1)


def _mean_of_tail(teacher: TopKLabels, log_q: Tensor, log_q_head: Tensor) -> Tensor:
    """[B] mean of log q over the tail's classes."""
    if teacher.k * 4 < teacher.num_classes:
        total = log_q.sum(dim=-1) - log_q_head.sum(dim=-1)
    else:  # a small difference of large sums: leave the head out instead
        total = log_q.scatter(-1, teacher.classes, 0.0).sum(dim=-1)
    if teacher.masked:
        total = total - log_q[..., list(teacher.masked)].sum(dim=-1)
    return total / teacher.tail_classes


def _class_mean_part(
    teacher: TopKLabels, log_q: Tensor, log_q_head: Tensor, temperature: float | Tensor, log_m: Tensor
) -> Tensor:
    """[B] m (log m - log W + sum_t w (log w - log q) / W) over the tail's classes t, with w = exp(class mean / T) and W
    their sum.

    Sums over the tail are sums over all classes less those over the head, so that w stays [C]. What is heavy and nearly
    always in the head would drown the rest in such a difference: the HEAVY largest are summed up one by one.
    """
    log_w: Tensor = teacher.tail_shares(temperature)
    if log_w.ndim > 1:  # a temperature for each row
        log_w = log_w.scatter(-1, teacher.classes, -torch.inf)
        log_w = log_w - log_w.logsumexp(dim=-1, keepdim=True)
        ratio = torch.where(log_w.isfinite(), log_w, 0.0) - log_q
        return log_m.exp() * (log_m + (log_w.exp() * ratio).sum(dim=-1))
    heavy = log_w.topk(min(HEAVY, teacher.num_classes)).indices
    light = log_w.index_fill(0, heavy, -torch.inf)
    scale = torch.maximum(light.max(), log_w.max() - 60.0)  # e^60 is far from what f32 holds
    w, log_w = (light - scale).exp(), (log_w - scale).clamp_min(LOG_ZERO)
    own, w_head = w * log_w, w[teacher.classes]
    in_tail = (teacher.classes[..., None] != heavy).all(dim=-2)  # [B, K, HEAVY] to [B, HEAVY]
    w_heavy = torch.where(in_tail, log_w[heavy].exp(), 0.0)
    total = w.sum() - w_head.sum(dim=-1) + w_heavy.sum(dim=-1)
    entropy = own.sum() - own[teacher.classes].sum(dim=-1) + (w_heavy * log_w[heavy]).sum(dim=-1)
    cross = log_q @ w - (w_head * log_q_head).sum(dim=-1) + (w_heavy * log_q[..., heavy]).sum(dim=-1)
    total = total.clamp_min(torch.finfo(total.dtype).tiny)
    return log_m.exp() * (log_m - total.log() + (entropy - cross) / total)
