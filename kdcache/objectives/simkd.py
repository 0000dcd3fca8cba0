"""SimKD: the student predicts through the teacher's classifier, and learns the map that is pooled before it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from kdcache.base.tap_names import TapName, placed_shape
from kdcache.errors import InvalidInputError
from kdcache.networks.simkd import LastLayer, Norm, SimKDStudent
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, Facts
from kdcache.objectives.maps import of_one_size, placed, vectors
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import Head, Sizes, TapPair, cannot_join, head_of, tap_pairs
from kdcache.objectives.targets import Targets

Factor = Annotated[int, Field(ge=1)]
PROJECTOR = "projector"  # the layer of the wrapped network whose output is compared
AGREEMENT = 0.9  # share of rows of which the head must name the teacher's class: f16 and even pooling cost under .01
ABSENT = -1e4  # logit of a class that counts as absent: no softmax sees it, and f16 holds it


class SimKD(nn.Module):
    """The objective is `mean (P(F_s) - F_t)^2` over rows, channels and places: F_t [B, D, H, W] the teacher's last map,
    P a projector of the student's map; the student answers W mean(P(F_s)) + b by the teacher's classifier W [C, D], b
    [C], which is kept as it is.

    Chen et al. 2022, equation 3 and section 3.2: P is 1 x 1, 3 x 3, 1 x 1 with batch norm and ReLU, its middle D /
    `factor` wide, factor 2; no labels and no logits take part (w_ce 0, w_kd 1), all as in their code. `last` "linear"
    leaves out P's last ReLU, for teachers whose maps have negative values; `norm` "group" lets no rows meet, and so
    several processes train as one does. Maps of two sizes are pooled to the smaller
    one, the student's before P, as theirs.

    The student's tap is a map. The teacher's is the one whose mean over places its classifier takes. Before the first
    step W mean(F_t) + b must name the teacher's own class. Exact on maps as they are; pooled maps are compared as they
    are, and of pooled features [B, D] the mean of P(F_s) alone: approximate, though equal means give equal logits. One
    store. The network that is trained and saved is `kdcache.networks:simkd`.

    Examples:
        >>> objective = make_objective("simkd", sizes=sizes)
        >>> student = objective.wrap(torch.nn.Sequential())  # with the projector and the teacher's classifier
        >>> objective.student_taps
        ('projector',)
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS,
        pooled="approximate: the pooled maps, or of features the mean of the student's, are compared",
        w_ce=0.0,
        w_kd=1.0,
        keeps=("head",),
        sees=("taps",),
        asks_at=(),
        by_kl=True,
    )
    student_taps: ClassVar[tuple[str, ...]] = (PROJECTOR,)

    def __init__(
        self,
        student_tap: str = "",
        teacher_tap: str = "",
        factor: Factor = 2,
        last: LastLayer = "relu",
        norm: Norm = "batch",
        *,
        sizes: Sizes,
    ) -> None:
        super().__init__()
        self.pair = _only_pair(sizes, student_tap, teacher_tap)
        self.factor, self.last, self.norm = factor, last, norm
        head = head_of("simkd", sizes.teachers[0], self.pair)
        self._head = _masked(head, sizes.teachers[0].masked)
        self.teacher_taps = ((self.pair.teacher,),)

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        student = outputs.tap(PROJECTOR)
        teacher = placed(batch.tap(0, self.pair.teacher)).to(student.dtype)
        student, teacher = of_one_size(student, teacher)
        return (student - teacher).square().mean()

    def wrap(self, network: nn.Module) -> SimKDStudent:
        """The student that answers through the teacher's classifier, with a new projector, on the network's device."""
        student = SimKDStudent(
            network,
            _tap_of_projector(self.pair),
            classes=len(self._head.weight),
            channels=placed_shape(self.pair.teacher_shape)[0],
            width=placed_shape(self.pair.student_shape)[0],
            factor=self.factor,
            last=self.last,
            norm=self.norm,
        )
        with torch.no_grad():
            student.head.weight.copy_(self._head.weight)
            student.head.bias.copy_(self._head.bias)
        first = next(network.parameters(), None)
        return student if first is None else student.to(first.device)

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Outputs, Batch]]) -> None:
        """Check on these batches that the classifier, on the mean of the kept map, names the teacher's own class.
        Raises InvalidInputError where it does not in a tenth of the rows. Nothing is learned. Drawn soft labels do not
        tell that class, and are not asked."""
        rows, agreeing = 0, 0
        for _, batch in pairs:
            if batch.teachers[0].DRAWN:
                continue
            means = vectors(batch.tap(0, self.pair.teacher)).float()
            logits = means @ self._head.weight.to(means.device).T + self._head.bias.to(means.device)
            rows += len(means)
            agreeing += int((logits.argmax(dim=1) == batch.teachers[0].top_class).sum())
        if agreeing < AGREEMENT * rows:
            raise InvalidInputError(
                f"objective simkd answers through the teacher's classifier, which on the mean of {self.pair.teacher} "
                "names "
                f"the teacher's own class in {agreeing} of {rows} rows: another layer is pooled before it; keep that "
                "with extract --keep head,tap:LAYER, or take --set teacher_tap=features"
            )


def _only_pair(sizes: Sizes, student_tap: str, teacher_tap: str) -> TapPair:
    """The pair of taps, a map of the student and a map or vector of the store."""
    if len(sizes.teachers) != 1:
        raise InvalidInputError(
            f"objective simkd answers through one teacher's classifier; {len(sizes.teachers)} stores were given: "
            "choose one"
        )
    pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="simkd")[0]
    if len(pairs) != 1:
        raise InvalidInputError(f"objective simkd compares one layer, {len(pairs)} were named; choose the last")
    if len(pairs[0].student_shape) != 3:
        raise cannot_join(
            "simkd", pairs[0], "its projector takes maps; name a layer of the student that gives [C, H, W]"
        )
    if len(pairs[0].teacher_shape) == 2:
        raise cannot_join("simkd", pairs[0], "tokens are no map; name a layer of the teacher that gives [C, H, W]")
    return pairs[0]


def _tap_of_projector(pair: TapPair) -> str:
    """The student's tap, pooled to the teacher's map where that is smaller and has places."""
    _, height, width = placed_shape(pair.student_shape)
    _, *others = placed_shape(pair.teacher_shape)
    size = (min(height, others[0]), min(width, others[1]))
    if others == [1, 1] or size == (height, width):
        return pair.student
    return str(replace(TapName.parse(pair.student), size=size))


def _masked(head: Head, masked: tuple[int, ...]) -> Head:
    """The classifier, by which classes that count as absent are never answered."""
    bias = head.bias.clone()
    bias[list(masked)] = ABSENT
    return Head(head.weight.clone(), bias)
