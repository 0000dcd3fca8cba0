"""Contrastive representation distillation (CRD) tells a row's own teacher features from those of other rows."""

from collections.abc import Iterable
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from kdcache.base.tap_names import placed_shape
from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch, Negatives
from kdcache.objectives.facts import ANY_LOGITS, Facts, Positive
from kdcache.objectives.maps import unit_rows, vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import Sizes, names_of, tap_pairs
from kdcache.objectives.targets import Targets, mean_of_teachers

Count = Annotated[int, Field(ge=1)]


class CRD(nn.Module):
    """The objective is `-log h(s, t) - sum over negatives j of log(1 - h(s, t_j))`, mean over rows: h = e^(ab / tau) /
    (e^(ab / tau) + N Z), a and b the learned linear embeddings [B, dim] of student's and teacher's features, of length
    1; N counts the negatives of a row.

    Tian et al. 2020, equations 17 to 19; Ojha et al. 2023 use it so.

    Negatives are rows of the whole view, drawn from the store with each batch. The row itself and rows of its class do
    not count; of a mixed row those of either class count less, by its lambda.

    Z is the mean of e^(ab / tau) before the first step, as in the authors' code (`constant` "fitted"), or 1 / M, M the
    rows of the view, as in the paper ("paper"). With "paper" a new student's h is near 1 for every negative, and the
    loss of thousands of negatives is large: lower w_kd to about .01.

    Two things differ from the authors' code. Embeddings of negatives are computed anew from the stored features, where
    the code keeps a bank that follows with momentum. The student alone is the anchor, since a store holds no student
    for the teacher to be contrasted with. tau .07 and dim 128 are theirs; they take 16,384 negatives, and a w_kd of .8.
    w_kd is .08 here, since .8 can keep a small student from learning.

    The student's tap may be a map, whose mean over places is taken. Exact: the features are stored. The logits are not
    asked. Several stores: the weighted mean over them, each with embeddings of its own.

    Examples:
        >>> from kdcache.objectives.batch import Negatives
        >>> negatives = Negatives(positions=torch.tensor([5, 9]), y=torch.tensor([1, 1]), features=(features[1],))
        >>> objective = make_objective("crd", {"constant": "paper"}, sizes=replace(sizes, rows=300))
        >>> objective(outputs, replace(batch, negatives=negatives)).ndim
        0
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        mixing="mixed answer; negatives of its classes count by lambda",
        w_ce=1.0,
        w_kd=0.08,
        keeps=("features",),
        sees=("taps",),
        asks_at=(),
        by_kl=True,
    )
    log_z: Tensor

    def __init__(
        self,
        student_tap: str = "",
        negatives: Count = 4096,
        tau: Positive = 0.07,
        dim: Count = 128,
        constant: Literal["fitted", "paper"] = "fitted",
        *,
        sizes: Sizes,
    ) -> None:
        super().__init__()
        self.negatives, self.tau = negatives, tau
        self.pairs = tap_pairs(sizes, student_tap, "features", default="features", name="crd")
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares
        pairs = [pair for (pair,) in self.pairs]
        self.of_student = nn.ModuleList(nn.Linear(placed_shape(pair.student_shape)[0], dim) for pair in pairs)
        self.of_teacher = nn.ModuleList(nn.Linear(placed_shape(pair.teacher_shape)[0], dim) for pair in pairs)
        if constant == "paper" and not sizes.rows:
            raise InvalidInputError(
                "constant of objective crd is paper, which needs the number of rows of a view: give Sizes(rows=...), "
                "or take constant fitted"
            )
        start = -log(sizes.rows) if constant == "paper" else torch.nan
        self.register_buffer("log_z", torch.full((len(pairs),), start))  # NaN until it is fitted
        self._is_fitted = constant == "paper"

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        self._require_fitted()
        negatives = batch.negatives
        if negatives is None:
            raise InvalidInputError(
                "objective crd needs negatives and the batch has none: give it Batch(negatives=Negatives(...)), rows "
                f"of the same view, as kdcache train draws {self.negatives} with each batch"
            )
        negatives = negatives.first(self.negatives)
        weights = weights_of_negatives(batch, negatives).to(self.log_z.dtype)
        losses = []
        for number in range(len(self.pairs)):
            own, others = self._similarities(number, outputs, batch, negatives.features[number])
            losses.append(contrast(own, others, weights, self.log_z[number].to(own.dtype)))
        return mean_of_teachers(losses, self.shares)

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Outputs, Batch]]) -> None:
        """Set Z of each store to the mean of e^(ab / tau) over rows and negatives of these batches; where these have no
        negatives, over all pairs of their rows. With `constant` "paper" nothing changes."""
        if self._is_fitted:
            return
        logs: list[list[Tensor]] = [[] for _ in self.pairs]
        for outputs, batch in pairs:
            for number, of_store in enumerate(logs):
                negatives = None if batch.negatives is None else batch.negatives.first(self.negatives)
                drawn = batch.tap(number, "features") if negatives is None else negatives.features[number]
                _, others = self._similarities(number, outputs, batch, drawn)
                of_store.append(others.logsumexp(dim=(0, 1)) - log(others.numel()))
        if not logs[0]:
            raise InvalidInputError("objective crd is fitted on at least one batch, and none was given")
        for number, of_store in enumerate(logs):
            self.log_z[number] = torch.stack(of_store).logsumexp(dim=0) - log(len(of_store))

    def _similarities(self, number: int, outputs: Outputs, batch: Batch, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """ab / tau of a store: [B] of each row and its own teacher, [B, M] of each row and each negative."""
        (pair,) = self.pairs[number]
        student = vectors(outputs.tap(pair.student))
        anchors = unit_rows(self.of_student[number](student))
        own = unit_rows(self.of_teacher[number](batch.tap(number, pair.teacher).to(student.dtype)))
        others = unit_rows(self.of_teacher[number](negatives.to(student.dtype)))
        return (anchors * own).sum(dim=1) / self.tau, anchors @ others.T / self.tau

    def _require_fitted(self) -> None:
        """Raises InvalidInputError before `fit`. Asked once: it waits for the device."""
        if not self._is_fitted and self.log_z.isnan().any():
            raise InvalidInputError(
                "objective crd has no constant Z yet: call fit([(outputs, batch), ...]) before the first step, as "
                "kdcache train does, or take --set constant=paper"
            )
        self._is_fitted = True


def contrast(own: Tensor, others: Tensor, weights: Tensor, log_z: Tensor) -> Tensor:
    """The loss of similarities `own` [B] and `others` [B, M], over tau; weights [B, M] of the negatives, 0 to 1.

    By logarithms of the sigmoid: no exponential overflows. A row without negatives counts one in N."""
    shift = log_z + weights.sum(dim=1).clamp_min(1.0).log()
    misses = (weights * logsigmoid(shift[:, None] - others)).sum(dim=1)
    return -(logsigmoid(own - shift) + misses).mean()


def weights_of_negatives(batch: Batch, negatives: Negatives) -> Tensor:
    """[B, M] f32: 1 less the share of the negative's class in the row, by lambda where the row is mixed; 0 for the row
    itself. A row or a negative without a label has no class to share."""
    device, known = batch.y.device, negatives.y >= 0
    alike = ((batch.y[:, None] == negatives.y) & known).float()
    if batch.y2 is not None and batch.lam is not None:
        second = ((batch.y2[:, None] == negatives.y) & known).float()
        alike = torch.lerp(second, alike, batch.lam.float()[:, None])
    itself = batch.positions.to(device)[:, None] == negatives.positions.to(device)
    return torch.where(itself, 0.0, 1.0 - alike)
