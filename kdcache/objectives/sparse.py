"""KL from top-k soft labels without a [B, C] target: the head by its classes, the tail by one or two sums.

Shape letters: B any leading axes, K kept classes, C classes.
"""

from math import log

import torch
from torch import Tensor

from kdcache.softlabels import Tail, TopKLabels


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
    """Log-probabilities [B, K + 1] of teacher at T and student: the kept classes, then all others as one."""
    log_p = torch.cat([teacher.log_probs(temperature), teacher.tail_log_prob(temperature)[..., None]], dim=-1)
    rest = _log_rest(teacher, log_q)[..., None]
    return log_p, torch.cat([log_q.gather(-1, teacher.classes), rest], dim=-1)


def _log_rest(teacher: TopKLabels, log_q: Tensor) -> Tensor:
    """[B] log of the student's probability outside the head; masked classes are not in it."""
    outside = log_q.scatter(-1, teacher.classes, -torch.inf)
    if teacher.masked:
        outside[..., list(teacher.masked)] = -torch.inf
    return outside.logsumexp(dim=-1)


def _mean_of_tail(teacher: TopKLabels, log_q: Tensor, log_q_head: Tensor) -> Tensor:
    """[B] mean of log q over the tail's classes."""
    total = log_q.sum(dim=-1) - log_q_head.sum(dim=-1)
    if teacher.masked:
        total = total - log_q[..., list(teacher.masked)].sum(dim=-1)
    return total / teacher.tail_classes


def _class_mean_part(
    teacher: TopKLabels, log_q: Tensor, log_q_head: Tensor, temperature: float | Tensor, log_m: Tensor
) -> Tensor:
    """[B] m (log m - log W + sum_t w (log w - log q) / W) over the tail's classes t, with w = exp(class mean / T) and W
    their sum. Sums over the tail are sums over all classes less those over the head, so that w stays [C]."""
    log_w: Tensor = teacher.tail_shares(temperature)
    w = log_w.exp()
    own = torch.where(w > 0, w * log_w, 0.0)
    w_head, own_head = _at_head(w, teacher), _at_head(own, teacher)
    total = w.sum(dim=-1) - w_head.sum(dim=-1)
    entropy = own.sum(dim=-1) - own_head.sum(dim=-1)
    cross = (log_q @ w if w.ndim == 1 else (log_q * w).sum(dim=-1)) - (w_head * log_q_head).sum(dim=-1)
    part: Tensor = log_m.exp() * (log_m - total.log() + (entropy - cross) / total)
    return part


def _at_head(values: Tensor, teacher: TopKLabels) -> Tensor:
    """[B, K] of values [C] or [B, C]."""
    return values[teacher.classes] if values.ndim == 1 else values.gather(-1, teacher.classes)
