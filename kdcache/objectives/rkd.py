"""Relational distillation (RKD) compares distances and angles among the rows of a batch."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torch.utils.checkpoint import checkpoint

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts, NotNegative
from kdcache.objectives.maps import unit_rows, vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, names_of, tap_pairs
from kdcache.objectives.targets import Targets

LARGEST = 1 << 24  # numbers of the differences, or the cosines, of one chunk


class RKD(nn.Module):
    """The objective is `distance L_D + angle L_A` of vectors [B, D]: L_D = mean over pairs (i, j) of huber(d_s, d_t), d
    = |x_i - x_j| over the mean of the distances that are not 0; L_A = mean over triplets (i, j, k) of huber(c_s, c_t),
    c the cosine of the angle at x_j between x_i and x_k. Huber's function has its corner at 1. Nothing is learned.

    Park et al. 2019, equations 5 to 9, weights 25 and 50 as there (and in RepDistiller); means over all B^2 and B^3
    entries, as in their code, those of equal rows being 0. Of maps and tokens the mean over places is taken. Rows of a
    batch meet, in B^3 triplets: large batches are computed by chunks, twice. Exact on features, and on maps whose
    pooled mean is the same; the logits are not asked.

    Examples:
        >>> round(make_objective("rkd", sizes=sizes)(outputs, batch).item(), 3)
        0.635
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        pooled="exact: means over places are compared (nearly, where windows overlap)",
        w_ce=1.0,
        w_kd=1.0,
        sees=("taps",),
        asks_at=(),
        couples=True,
        by_kl=True,
    )

    def __init__(
        self,
        student_tap: str = "",
        teacher_tap: str = "",
        distance: NotNegative = 25.0,
        angle: NotNegative = 50.0,
        *,
        sizes: Sizes,
    ) -> None:
        super().__init__()
        self.distance, self.angle = distance, angle
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="features", name="rkd")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(self._loss, self.pairs, self.shares, outputs, batch)

    def _loss(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = vectors(student), vectors(teacher)
        loss = student.new_zeros(())
        if self.distance:
            loss = loss + self.distance * smooth_l1_loss(_distances(student), _distances(teacher))
        if self.angle:
            loss = loss + self.angle * angle_difference(student, teacher)
        return loss


def angle_difference(student: Tensor, teacher: Tensor, *, largest: int = LARGEST) -> Tensor:
    """L_A of vectors [B, D], [B, E], by chunks of corners whose tensors hold at most about `largest` numbers."""
    rows = len(student)
    step = max(1, largest // (rows * max(rows, student.shape[1], teacher.shape[1])))
    if step >= rows:
        return _angles_at(student, teacher, 0, rows) / rows**3
    sums = [
        checkpoint(_angles_at, student, teacher, start, start + step, use_reentrant=False, preserve_rng_state=False)
        for start in range(0, rows, step)
    ]
    return torch.stack(sums).sum() / rows**3


def _angles_at(student: Tensor, teacher: Tensor, start: int, stop: int) -> Tensor:
    """The sum of the differences of angles at the rows start to stop."""
    return smooth_l1_loss(_cosines(student, start, stop), _cosines(teacher, start, stop), reduction="sum")


def _cosines(rows: Tensor, start: int, stop: int) -> Tensor:
    """[J, B, B] cosines at rows j between the directions to rows i and k; 0 where there is none."""
    directions = unit_rows(rows[None] - rows[start:stop, None])
    return directions @ directions.transpose(1, 2)


def _distances(rows: Tensor) -> Tensor:
    """[B, B] distances over the mean of those that are not 0. The gradient of a distance 0 is 0."""
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp_min(1)
    return distances / torch.where(mean > 0, mean, 1.0)
