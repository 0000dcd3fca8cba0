"""The teacher's best class serves as a hard label."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import ALL_TAILS, Facts
from kdcache.objectives.hard import cross_entropy_rows
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class HardTeacher(ByRows):
    """The objective is `CE(argmax_c p_c, q)`: cross-entropy of the student's logits [B, C] with the class that the
    teacher finds best.

    Touvron et al. 2021 (DeiT), equation 3, which weighs it and the hard labels by 1/2. Exact on full and on top-k,
    whose tail plays no part. Mixed pictures: the teacher's best class of the mixed one.

    Examples:
        >>> round(make_objective("hard-teacher")(logits, batch).item(), 3)
        0.635
    """

    facts: ClassVar[Facts] = Facts(topk="exact", tails=ALL_TAILS, w_ce=0.5, w_kd=0.5, asks_at=(), ranks=True)

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return cross_entropy_rows(outputs.logits, targets.top_class())
