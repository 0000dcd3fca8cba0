"""Attention transfer (AT) compares where the channels of student and teacher answer strongly."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, POOLED_MAPS, Facts
from kdcache.objectives.maps import of_one_size, placed, unit_rows
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, cannot_join, names_of, require_common_places, tap_pairs
from kdcache.objectives.targets import Targets

Power = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class AT(nn.Module):
    """The objective is `mean (Q_s / |Q_s| - Q_t / |Q_t|)^2` over rows and places, Q = sum over channels of |F|^p, its
    places as one vector of Euclidean length |Q|; several layers add up. Nothing is learned.

    Zagoruyko & Komodakis 2017, section 3.1, equation 2 with the difference squared, as in their code. p 2. w_kd 500 is
    their beta / 2, beta 1e3 over rows and places; their code and RepDistiller take 1e3. These weights are for wide
    networks and long training: with a small student, try 100.

    Maps [B, C, H, W] of two sizes are pooled to the smaller one before Q; tokens [B, T, D] have a place each; vectors
    have none and are refused. Exact on maps as they are; on a pooled tap the pooled maps are compared. The logits are
    not asked.

    Examples:
        >>> round(make_objective("at", {"w_kd": 1.0}, sizes=sizes)(outputs, batch).item(), 3)
        0.683
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS, pooled=POOLED_MAPS, w_ce=1.0, w_kd=500.0, sees=("taps",), asks_at=(), by_kl=True
    )

    def __init__(self, student_tap: str = "", teacher_tap: str = "", power: Power = 2.0, *, sizes: Sizes) -> None:
        super().__init__()
        self.power = power
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="at")
        require_common_places("at", self.pairs)
        for pair in (pair for pairs in self.pairs for pair in pairs):
            if (1, 1) in (placed_shape(pair.student_shape)[1:], placed_shape(pair.teacher_shape)[1:]):
                raise cannot_join("at", pair, "one place has no attention; name layers that give maps or tokens")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(self._loss, self.pairs, self.shares, outputs, batch)

    def _loss(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        student_map, teacher_map = of_one_size(placed(student), placed(teacher))
        return (self._attention(student_map) - self._attention(teacher_map)).square().mean()

    def _attention(self, maps: Tensor) -> Tensor:
        """[B, H W] of maps [B, C, H, W], each row of length 1."""
        return unit_rows(maps.abs().pow(self.power).sum(dim=1).flatten(1))
