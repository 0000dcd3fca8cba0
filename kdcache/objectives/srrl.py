"""SRRL lets the student's features answer through the teacher's classifier."""

from typing import ClassVar

from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts, NotNegative
from kdcache.objectives.maps import vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, TapPair, TeacherSizes, head_of, names_of, tap_pairs
from kdcache.objectives.targets import Targets


class SRRL(nn.Module):
    """The objective is `feature L_FM + regression L_SR`: L_FM = mean (r(f_s) - f_t)^2 over rows and features, L_SR =
    mean (W r(f_s) - W f_t)^2 over rows and classes, W [C, D] the teacher's classifier, r a learned linear map of the
    student's features [B, E] to the teacher's [B, D].

    Yang et al. 2021 (softmax regression representation learning), its feature matching and softmax regression losses;
    the latter by squared error of logits, the paper's better form. Means in place of sums, and weights 1 and 1, as in
    Chen et al. 2022's comparison. r is linear: batch norm and ReLU, which follow in their code, would let a process's
    rows meet. The classifier's bias falls out. Masked classes are left out. The student's tap may be a map, whose mean
    over places is taken.

    Exact on any store, top-k too: the teacher's logits are not asked, but made of its features and head. Several
    stores: the weighted mean over them, each with its own r.

    Examples:
        >>> make_objective("srrl", sizes=sizes)(outputs, batch).ndim  # a number
        0
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        w_ce=1.0,
        w_kd=1.0,
        keeps=("features", "head"),
        sees=("taps",),
        asks_at=(),
        by_kl=True,
    )

    def __init__(
        self,
        student_tap: str = "",
        feature: NotNegative = 1.0,
        regression: NotNegative = 1.0,
        *,
        sizes: Sizes,
    ) -> None:
        super().__init__()
        self.feature, self.regression = feature, regression
        self.pairs = tap_pairs(sizes, student_tap, "features", default="features", name="srrl")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares
        pairs = [pair for (pair,) in self.pairs]
        self.connectors = nn.ModuleList(
            nn.Linear(placed_shape(pair.student_shape)[0], pair.teacher_shape[0]) for pair in pairs
        )
        for number, (pair, teacher) in enumerate(zip(pairs, sizes.teachers, strict=True)):
            weight = _visible_weight(teacher, pair)
            self.register_buffer(f"head_{number}", weight, persistent=False)  # the store's, not the run's

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(self._loss, self.pairs, self.shares, outputs, batch)

    def _loss(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        difference = self.connectors[index](vectors(student)) - teacher
        logits = difference @ self.get_buffer(f"head_{index}").T
        loss: Tensor = self.feature * difference.square().mean() + self.regression * logits.square().mean()
        return loss


def _visible_weight(teacher: TeacherSizes, pair: TapPair) -> Tensor:
    """[C, D] of the classes that are not masked."""
    weight = head_of("srrl", teacher, pair).weight
    masked = set(teacher.masked)
    return weight[[number for number in range(len(weight)) if number not in masked]].clone()
