"""Divergences other than the forward KL: reverse, symmetric, Jensen-Shannon, skewed, total variation, Brier.

Each is T^2 times a mean over rows of a divergence of p_T and q_T, in nats; logits [B, C]. Exact on full; on top-k the
head is exact and the tail by sketch. A ghost tail is a coarser pair of distributions: a lower bound for every
f-divergence (data processing inequality).
"""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOUNDED, BY_CLASS, FULL_SUPPORT, SKETCHED, Facts, OpenShare, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets, kl_rows


@dataclass(frozen=True)
class ReverseKL(ByRows):
    """KL(q || p): the student leaves classes that the teacher finds unlikely. Gu et al. 2024 (MiniLLM)."""

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, tails=FULL_SUPPORT, w_ce=0.0, w_kd=1.0, zeros=False)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * kl_rows(log_q, log_p)


@dataclass(frozen=True)
class SymmetricKL(ByRows):
    """(KL(p || q) + KL(q || p)) / 2. Jeffreys 1946; half of his divergence, to be weighed as KD is."""

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, tails=FULL_SUPPORT, w_ce=0.0, w_kd=1.0, zeros=False)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * 0.5 * (kl_rows(log_p, log_q) + kl_rows(log_q, log_p))


@dataclass(frozen=True)
class JSD(ByRows):
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q; beta 1/2 is Jensen-Shannon.

    Agarwal et al. 2024 (GKD): the generalised Jensen-Shannon divergence.
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    beta: OpenShare = 0.5
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        log_m = _log_mixture(log_p, log_q, self.beta)
        rows = self.beta * kl_rows(log_p, log_m) + (1.0 - self.beta) * kl_rows(log_q, log_m)
        return self.temperature**2 * rows


@dataclass(frozen=True)
class SkewKL(ByRows):
    """KL(p || skew p + (1 - skew) q). Ko et al. 2024 (DistiLLM), section 3.1, skew 0.1."""

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    skew: OpenShare = 0.1
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * kl_rows(log_p, _log_mixture(log_p, log_q, self.skew))


@dataclass(frozen=True)
class SkewReverseKL(ByRows):
    """KL(q || (1 - skew) p + skew q). Ko et al. 2024 (DistiLLM), section 3.1, skew 0.1: finite where p is 0."""

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    skew: OpenShare = 0.1
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * kl_rows(log_q, _log_mixture(log_q, log_p, self.skew))


@dataclass(frozen=True)
class TVD(ByRows):
    """sum_c |p_c - q_c| / 2: total variation distance. Wen et al. 2023 (f-DISTILL)."""

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * 0.5 * (log_p.exp() - log_q.exp()).abs().sum(dim=-1)


@dataclass(frozen=True)
class Brier(ByRows):
    """sum_c (p_c - q_c)^2: the Brier score (Brier 1950) against soft labels. No f-divergence: a ghost tail bounds
    nothing and is refused."""

    facts: ClassVar[Facts] = Facts(topk=SKETCHED, tails=BY_CLASS, w_ce=0.0, w_kd=1.0)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        log_p, log_q = _pair(outputs.logits, targets, self.temperature)
        return self.temperature**2 * (log_p.exp() - log_q.exp()).square().sum(dim=-1)


def _pair(logits: Tensor, targets: Targets, temperature: float) -> tuple[Tensor, Tensor]:
    return targets.pair(torch.log_softmax(logits / temperature, dim=-1), temperature)


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    return torch.logaddexp(log_a + log(share), log_b + log(1.0 - share))
