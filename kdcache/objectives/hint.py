"""Hint (FitNets) regresses a layer of the student on one of the teacher, through a projection that is learned."""

from typing import ClassVar

from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, POOLED_MAPS, Facts
from kdcache.objectives.maps import of_one_size, placed
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, names_of, require_common_places, tap_pairs
from kdcache.objectives.targets import Targets


class Hint(nn.Module):
    """The objective is `mean (r(F_s) - F_t)^2` over rows, channels and places, r a learned 1 x 1 convolution from the
    student's channels to the teacher's; several layers add up.

    Romero et al. 2015, equation 3; with the mean in place of half the sum, r of one place, and both terms trained at
    once, where the paper trains the hint first. Weights 1 and 1 are ours. Maps [B, C, H, W] of two sizes are pooled to
    the smaller one; tokens [B, T, D] and vectors [B, D] do as well. Exact on maps as they are; on a pooled tap the
    pooled maps are compared. The logits are not asked. Several stores: the weighted mean over them, each with its own
    r.

    Examples:
        >>> make_objective("hint", sizes=sizes)(outputs, batch).ndim  # a number
        0
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS, pooled=POOLED_MAPS, w_ce=1.0, w_kd=1.0, sees=("taps",), asks_at=(), by_kl=True
    )

    def __init__(self, student_tap: str = "", teacher_tap: str = "", *, sizes: Sizes) -> None:
        super().__init__()
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="hint")
        require_common_places("hint", self.pairs)
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares
        self.projections = nn.ModuleList(
            nn.Conv2d(placed_shape(pair.student_shape)[0], placed_shape(pair.teacher_shape)[0], 1)
            for pairs in self.pairs
            for pair in pairs
        )

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(self._loss, self.pairs, self.shares, outputs, batch)

    def _loss(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        student_map, teacher_map = of_one_size(placed(student), placed(teacher))
        loss: Tensor = (self.projections[index](student_map) - teacher_map).square().mean()
        return loss
