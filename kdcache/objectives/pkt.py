"""Probabilistic knowledge transfer (PKT) compares which rows of a batch are neighbours."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts
from kdcache.objectives.maps import unit_rows, vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, names_of, tap_pairs
from kdcache.objectives.targets import Targets

LEAST = 1e-7  # is added to each probability before its logarithm, as in the authors' code


class PKT(nn.Module):
    """The objective is the mean over rows j of `sum over i != j of p_ij log(p_ij / q_ij)`: p_ij = K_ij / sum over k !=
    j of K_kj, K = (cos + 1) / 2 of the teacher's vectors [B, D], q likewise of the student's. Nothing is learned.

    Passalis & Tefas 2018, equations 3 to 6 with the cosine kernel; mean over rows for their sum. A row is not its own
    neighbour, as in the paper (in their code it is). The paper trains by this loss alone. w_kd 100 is ours: it gained
    .7 points with a student of four channels on 500 rows; RepDistiller's 3e4 on a mean over B^2 entries is 470 at its
    64 rows. Of maps and tokens the mean over places is taken. Rows of a batch meet. Exact on features, and on maps
    whose pooled mean is the same; the logits are not asked.

    Examples:
        >>> round(make_objective("pkt", sizes=sizes)(outputs, batch).item(), 3)
        0.635
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        pooled="exact: means over places are compared (nearly, where windows overlap)",
        w_ce=1.0,
        w_kd=100.0,
        sees=("taps",),
        asks_at=(),
        couples=True,
        by_kl=True,
    )

    def __init__(self, student_tap: str = "", teacher_tap: str = "", *, sizes: Sizes) -> None:
        super().__init__()
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="features", name="pkt")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(lambda _, *taps: neighbour_difference(*taps), self.pairs, self.shares, outputs, batch)


def neighbour_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of two taps [B, ...], [B, ...]; 0 for a single row, which has no neighbours."""
    p, q = _neighbours(vectors(teacher)), _neighbours(vectors(student))
    return (p * ((p + LEAST).log() - (q + LEAST).log())).sum() / max(len(p), 1)


def _neighbours(rows: Tensor) -> Tensor:
    """[B, B], by row j the probability of each other row i; 0 on the diagonal."""
    directions = unit_rows(rows)
    alike = ((directions @ directions.T + 1.0) / 2.0).clamp_min(0.0)
    alike = alike * (1.0 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
    total = alike.sum(dim=1, keepdim=True)
    return alike / torch.where(total > 0, total, 1.0)
