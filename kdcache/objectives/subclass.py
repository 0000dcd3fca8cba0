"""The subclass loss spreads the examples of each class over its subclasses: it trains teachers of subclasses."""

from dataclasses import dataclass
from math import log, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import Facts, NotNegative, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets

LEAST = 1e-12  # variance of a row's logits, below which they count as equal


@dataclass(frozen=True)
class Subclass:
    """The objective is `beta [mean_i log sum_j exp(<h_i, h_j>) - 1 / T - log B]`, beside the cross-entropy with the
    hard labels, over the rows i, j of a batch of B; h_i = (z_i - mean z_i) / (std z_i sqrt(T N)) of the logits z [B,
    N], N = C S.

    The auxiliary loss of Müller, Kornblith & Hinton 2020 (arXiv 2002.03936), with their beta 1 and T 1. A teacher of S
    subclasses a class (--subclasses S) learns by it to answer rows of a class unlike one another. Standardised logits
    have `<h_i, h_i> = 1 / T`, so it is above -log B, and 0 where all rows are answered alike. Rows meet. Needs no
    store, and takes rows without a label; mixed pictures: the answers to the mixed ones.

    Examples:
        >>> round(make_objective("subclass", {"w_ce": 0.0})(logits, batch).item(), 3)
        -0.549
    """

    facts: ClassVar[Facts] = Facts(
        topk="exact",
        mixing="mixed answer of the student",
        w_ce=1.0,
        w_kd=1.0,
        teacher=False,
        asks_at=(),
        couples=True,
    )
    beta: NotNegative = 1.0
    temperature: Positive = 1.0

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        logits = outputs.logits.flatten(0, -2)
        rows, width = logits.shape
        centred = logits - logits.mean(dim=-1, keepdim=True)
        deviation = centred.square().mean(dim=-1, keepdim=True).clamp_min(LEAST).sqrt()
        standardised = centred / (deviation * sqrt(self.temperature * width))
        similarity = standardised @ standardised.T
        return self.beta * (torch.logsumexp(similarity, dim=-1).mean() - 1.0 / self.temperature - log(rows))
