"""Divergences other than the forward KL: reverse, symmetric, Jensen-Shannon, skewed, total variation, Brier.

Each is T^2 times a mean over rows of a divergence of p_T and q_T, in nats; logits [B, C]. Exact on full; on top-k the
head is exact and the tail by sketch. A ghost tail is a coarser pair of distributions: a lower bound for every
f-divergence (data processing inequality). `measure` is that of `fused_divergences.Divergence`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOUNDED, BY_CLASS, FULL_SUPPORT, SKETCHED, Facts, OpenShare, Positive
from kdcache.objectives.fused_divergences import Pair
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class ReverseKL(ByRows):
    """The objective is `KL(q || p)`: the student leaves classes that the teacher finds unlikely. Gu et al. 2024
    (MiniLLM).

    Examples:
        >>> round(make_objective("reverse-kl")(logits, batch).item(), 3)
        0.077
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, tails=FULL_SUPPORT, w_ce=0.0, w_kd=1.0, zeros=False)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        parts = pair.q * (pair.log_q - pair.log_p)
        return parts.sum(dim=-1), parts


@dataclass(frozen=True)
class SymmetricKL(ByRows):
    """The objective is `(KL(p || q) + KL(q || p)) / 2`. Jeffreys 1946; half of his divergence, to be weighed as KD is.

    Examples:
        >>> round(make_objective("symmetric-kl")(logits, batch).item(), 3)
        0.074
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, tails=FULL_SUPPORT, w_ce=0.0, w_kd=1.0, zeros=False)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        p, q = pair.p, pair.q
        ratio = pair.log_q - pair.log_p
        return 0.5 * ((q - p) * ratio).sum(dim=-1), 0.5 * (q * ratio - p)


@dataclass(frozen=True)
class JSD(ByRows):
    """The objective is `beta KL(p || m) + (1 - beta) KL(q || m)`, m = beta p + (1 - beta) q; beta 1/2 is
    Jensen-Shannon.

    Agarwal et al. 2024 (GKD): the generalised Jensen-Shannon divergence.

    Examples:
        >>> round(make_objective("jsd", {"beta": 0.5})(logits, batch).item(), 3)
        0.018
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    beta: OpenShare = 0.5
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        p, q = pair.p, pair.q
        log_m = _log(torch.lerp(q, p, self.beta))
        of_q = (1.0 - self.beta) * q * (pair.log_q - log_m)
        return (self.beta * p * (pair.log_p - log_m) + of_q).sum(dim=-1), of_q


@dataclass(frozen=True)
class SkewKL(ByRows):
    """The objective is `KL(p || skew p + (1 - skew) q)`. Ko et al. 2024 (DistiLLM), section 3.1, skew 0.1.

    Examples:
        >>> round(make_objective("skew-kl")(logits, batch).item(), 3)
        0.058
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    skew: OpenShare = 0.1
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        p, q = pair.p, pair.q
        mixture = _positive(torch.lerp(q, p, self.skew))
        h = (self.skew - 1.0) * p * q / mixture
        return (p * (pair.log_p - mixture.log())).sum(dim=-1), h


@dataclass(frozen=True)
class SkewReverseKL(ByRows):
    """The objective is `KL(q || (1 - skew) p + skew q)`. Ko et al. 2024 (DistiLLM), section 3.1, skew 0.1: finite where
    p is 0.

    Examples:
        >>> round(make_objective("skew-reverse-kl")(logits, batch).item(), 3)
        0.061
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    skew: OpenShare = 0.1
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        q = pair.q
        mixture = _positive(torch.lerp(pair.p, q, self.skew))
        parts = q * (pair.log_q - mixture.log())
        return parts.sum(dim=-1), torch.addcdiv(parts, q * q, mixture, value=-self.skew)


@dataclass(frozen=True)
class TVD(ByRows):
    """The objective is `sum_c |p_c - q_c| / 2`: total variation distance. Wen et al. 2023 (f-DISTILL).

    Examples:
        >>> round(make_objective("tvd")(logits, batch).item(), 3)
        0.149
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return 0.5 * self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        difference = pair.q - pair.p
        return difference.abs().sum(dim=-1), difference.sign().mul_(pair.q)


@dataclass(frozen=True)
class Brier(ByRows):
    """The objective is `sum_c (p_c - q_c)^2`: the Brier score (Brier 1950) against soft labels. No f-divergence: a
    ghost tail bounds nothing and is refused.

    Examples:
        >>> round(make_objective("brier")(logits, batch).item(), 3)
        0.05
    """

    facts: ClassVar[Facts] = Facts(topk=SKETCHED, tails=BY_CLASS, w_ce=0.0, w_kd=1.0)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return 2.0 * self.temperature**2 * targets.divergence(self, outputs.logits, self.temperature)

    def measure(self, pair: Pair) -> tuple[Tensor, Tensor]:
        difference = pair.q - pair.p
        return 0.5 * difference.square().sum(dim=-1), pair.q * difference


def _log(mixture: Tensor) -> Tensor:
    return _positive(mixture).log()


def _positive(mixture: Tensor) -> Tensor:
    """A mixture whose zeros are the least number there is: what it is multiplied by is 0 there."""
    return mixture.clamp_min(torch.finfo(mixture.dtype).tiny)
