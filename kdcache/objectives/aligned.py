"""Channel-aligned hint: the teacher's channels are matched with the student's once, then maps are compared."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, POOLED_MAPS, Facts
from kdcache.objectives.maps import of_one_size, placed, vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, TapPair, names_of, require_common_places, tap_pairs
from kdcache.objectives.targets import Targets

Array = npt.NDArray[np.float64]


class Aligned(nn.Module):
    """The objective is `mean (F_s[c] - F_t[m(c)])^2` over rows, places and matched channels c (`map` "assignment"); or
    mean (r(F_s) - F_t)^2, r a learned 1 x 1 convolution that begins as that matching (`map` "learned"). `map` "given"
    takes channels as they come, m(c) = c, for comparison. Several layers add up.

    After Han et al. 2021, of which no text or code was at hand: the teacher's channels are put in the student's order
    before the training. m is the assignment of greatest total correlation (scipy's linear_sum_assignment) between the
    class-mean responses of both, means over places; both as they are before the first step. Channels beyond the smaller
    number stay out. Classes are those of the hard labels, by lambda where pictures are mixed; of a row without a label
    the teacher's top class. Weights 1 and 1 are ours; on 2,000 rows the matching gained nothing over channels as they
    come.

    Maps [B, C, H, W] of two sizes are pooled to the smaller one; tokens and vectors do as well. Exact on maps as they
    are; on a pooled tap the pooled maps are compared. Of soft labels at most the top class is asked. Several stores:
    the weighted mean over them, each with its own m or r.

    Examples:
        >>> objective = make_objective("aligned", sizes=sizes)
        >>> objective.term.fit([(outputs, batch)])  # matches the channels, once, before the first step
        >>> objective(outputs, batch).ndim
        0
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS, pooled=POOLED_MAPS, w_ce=1.0, w_kd=1.0, sees=("taps",), asks_at=(), by_kl=True
    )

    def __init__(
        self,
        student_tap: str = "",
        teacher_tap: str = "",
        map: Literal["assignment", "learned", "given"] = "assignment",
        *,
        sizes: Sizes,
    ) -> None:
        super().__init__()
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="aligned")
        require_common_places("aligned", self.pairs)
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares
        self.matchings = nn.ModuleList(_Matching(pair, map) for pairs in self.pairs for pair in pairs)

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return loss_of_pairs(self._loss, self.pairs, self.shares, outputs, batch)

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Outputs, Batch]]) -> None:
        """Match the channels by the class-mean responses of these batches. Raises InvalidInputError where fewer than
        two classes are among them."""
        sums = [_ClassSums() for _ in self.matchings]
        for outputs, batch in pairs:
            rest = iter(sums)
            for number, of_store in enumerate(self.pairs):
                shares = _class_shares(batch, number)
                for pair in of_store:
                    next(rest).add(shares, outputs.tap(pair.student), batch.tap(number, pair.teacher))
        for matching, responses in zip(self.matchings, sums, strict=True):
            assert isinstance(matching, _Matching)
            matching.match(*responses.means())

    def _loss(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        student_map, teacher_map = self.matchings[index](*of_one_size(placed(student), placed(teacher)))
        loss: Tensor = (student_map - teacher_map).square().mean()
        return loss


class _Matching(nn.Module):
    """Which channel of the teacher goes with which of the student: `channels` [2, K] i64, -1 until they are matched."""

    channels: Tensor

    def __init__(self, pair: TapPair, kind: str) -> None:
        super().__init__()
        widths = placed_shape(pair.student_shape)[0], placed_shape(pair.teacher_shape)[0]
        self.is_given = kind == "given"
        count = min(widths)
        channels = torch.arange(count).repeat(2, 1) if self.is_given else torch.full((2, count), -1)
        self.register_buffer("channels", channels)
        self.map = nn.Conv2d(*widths, 1) if kind == "learned" else None
        self._is_matched = False

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, K, H, W] that are compared, of maps of one size."""
        if not self._is_matched and int(self.channels.min()) < 0:
            raise InvalidInputError(
                "objective aligned has not matched the channels yet: call fit([(outputs, batch), ...]) before the "
                "first step, as kdcache train does"
            )
        self._is_matched = True  # asked once: it waits for the device
        if self.map is not None:
            return self.map(student), teacher
        return student[:, self.channels[0]], teacher[:, self.channels[1]]

    def match(self, student_means: Array, teacher_means: Array) -> None:
        """Set the channels, and the learned map to them, by class-mean responses [classes, channels] of both."""
        if self.is_given:
            return
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(-correlations(student_means, teacher_means))
        self.channels.copy_(torch.from_numpy(np.stack([rows, columns])))
        if self.map is not None:
            self.map.weight.zero_()
            self.map.weight[self.channels[1], self.channels[0], 0, 0] = 1.0
            nn.init.zeros_(self.map.bias)  # type: ignore[arg-type]


class _ClassSums:
    """Sums by class of the responses of student and teacher, f64."""

    def __init__(self) -> None:
        self.weights: Array | None = None
        self.sums: list[Array] = []

    def add(self, shares: Array, *taps: Tensor) -> None:
        """Add the rows of taps [B, ...], with their shares [B, classes]."""
        sums = [shares.T @ vectors(tap.cpu().double()).numpy() for tap in taps]
        if self.weights is None:
            self.weights, self.sums = shares.sum(axis=0), sums
        else:
            self.weights = self.weights + shares.sum(axis=0)
            self.sums = [before + more for before, more in zip(self.sums, sums, strict=True)]

    def means(self) -> Sequence[Array]:
        """Class-mean responses [classes, channels] of each, of the classes that came."""
        seen = np.zeros(0, bool) if self.weights is None else self.weights > 0
        if self.weights is None or seen.sum() < 2:
            raise InvalidInputError(
                f"objective aligned matches channels by class, and {int(seen.sum())} classes are among the rows that "
                "it is fitted on; give more rows, or rows of more classes"
            )
        return [sums[seen] / self.weights[seen, None] for sums in self.sums]


def correlations(student_means: Array, teacher_means: Array) -> Array:
    """[channels, channels] correlations over classes of responses [classes, channels]; 0 for a channel that answers all
    classes alike."""

    def standardised(means: Array) -> Array:
        centred = means - means.mean(axis=0)
        lengths = np.linalg.norm(centred, axis=0)
        alike: Array = centred / np.where(lengths > 1e-12, lengths, np.inf)
        return alike

    result: Array = standardised(student_means).T @ standardised(teacher_means)
    return result


def _class_shares(batch: Batch, number: int) -> Array:
    """[B, classes] shares of each class in a row: hard labels, by lambda where mixed; else the teacher's top class."""
    shares = _one_hot(batch.y, batch.teachers[number])
    if batch.y2 is not None and batch.lam is not None:
        second = _one_hot(batch.y2, batch.teachers[number])
        shares = torch.lerp(second, shares, batch.lam.double()[:, None])
    array: Array = shares.cpu().numpy()
    return array


def _one_hot(labels: Tensor, teacher: SoftLabels) -> Tensor:
    """[B, classes] f64 of labels, the teacher's top class for -1; drawn soft labels, which tell none, refuse that."""
    teacher = teacher.by_class()
    if (labels < 0).any():
        labels = torch.where(labels >= 0, labels, teacher.top_class)
    return nn.functional.one_hot(labels, teacher.num_classes).double()
