"""Similarity-preserving distillation (SP) compares how alike the rows of a batch are to student and teacher."""

from typing import ClassVar

from torch import Tensor, nn

from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts
from kdcache.objectives.maps import unit_rows
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, names_of, tap_pairs
from kdcache.objectives.targets import Targets


class SP(nn.Module):
    """The objective is `|G_t - G_s|^2 / B^2`, Frobenius's norm: G [B, B] = Q Q', each row divided by its Euclidean
    length, Q [B, C H W] the flattened tap; several layers add up. Nothing is learned.

    Tung & Mori 2019, equations 1 to 4. w_kd 3000 is the paper's gamma, for CIFAR's wide networks and batches of 128:
    with a small student, try 100. Any taps go together, also of different sizes, since only the Grams are compared.
    Rows of a batch meet: it depends on the batch size. Exact on taps as they are; a pooled tap has another Gram. The
    logits are not asked.

    Examples:
        >>> round(make_objective("sp", {"w_kd": 1.0}, sizes=sizes)(outputs, batch).item(), 3)
        0.859
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        pooled="approximate: the Gram of the pooled maps is another",
        w_ce=1.0,
        w_kd=3000.0,
        sees=("taps",),
        asks_at=(),
        couples=True,
        by_kl=True,
    )

    def __init__(self, student_tap: str = "", teacher_tap: str = "", *, sizes: Sizes) -> None:
        super().__init__()
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="sp")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(lambda _, *taps: gram_difference(*taps), self.pairs, self.shares, outputs, batch)


def gram_difference(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of two taps [B, ...], [B, ...]."""
    return (_gram(teacher) - _gram(student)).square().mean()


def _gram(values: Tensor) -> Tensor:
    """[B, B] of values [B, ...], rows of length 1."""
    rows = values.flatten(1)
    return unit_rows(rows @ rows.T)
