"""Losses as their authors' code has them, on a dense teacher's logits at hand; T^2, mean over rows.

z, t [B, C]: logits of student and teacher. Each computes the teacher's softmax at each step, as the official code does.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

T = 2.0
SKEW = 0.1  # Ko et al. 2024


def _probs(logits: Tensor) -> Tensor:
    return torch.softmax(logits / T, dim=-1)


def _log_probs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits / T, dim=-1)


def reverse_kl(z: Tensor, t: Tensor) -> Tensor:
    log_q, log_p = _log_probs(z), _log_probs(t)
    return T**2 * (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean()


def symmetric_kl(z: Tensor, t: Tensor) -> Tensor:
    return 0.5 * (reverse_kl(z, t) + T**2 * kl_div(_log_probs(z), _probs(t), reduction="batchmean"))


def jsd(z: Tensor, t: Tensor) -> Tensor:
    p, q = _probs(t), _probs(z)
    log_m = ((p + q) / 2).log()
    return T**2 / 2 * (kl_div(log_m, p, reduction="batchmean") + kl_div(log_m, q, reduction="batchmean"))


def skew_kl(z: Tensor, t: Tensor) -> Tensor:
    p, q = _probs(t), _probs(z)
    return T**2 * kl_div((SKEW * p + (1 - SKEW) * q).log(), p, reduction="batchmean")


def skew_reverse_kl(z: Tensor, t: Tensor) -> Tensor:
    p, log_q = _probs(t), _log_probs(z)
    q = log_q.exp()
    return T**2 * (q * (log_q - (SKEW * q + (1 - SKEW) * p).log())).sum(dim=-1).mean()


def tvd(z: Tensor, t: Tensor) -> Tensor:
    return T**2 / 2 * (_probs(t) - _probs(z)).abs().sum(dim=-1).mean()


def brier(z: Tensor, t: Tensor) -> Tensor:
    return T**2 * (_probs(t) - _probs(z)).square().sum(dim=-1).mean()


def logit_mse(z: Tensor, t: Tensor) -> Tensor:
    """Without the centring: half of the sum of squares needs it, torch's mean is what people write."""
    return mse_loss(z, t)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reverse-kl": reverse_kl,
    "symmetric-kl": symmetric_kl,
    "jsd": jsd,
    "skew-kl": skew_kl,
    "skew-reverse-kl": skew_reverse_kl,
    "tvd": tvd,
    "brier": brier,
    "logit-mse": logit_mse,
}
