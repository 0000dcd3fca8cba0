"""Transformed teacher matching (TTM) tempers the teacher alone."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOUNDED, Facts, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class TTM(ByRows):
    """The objective is `KL(p_T || q_1)`: the teacher's power transform of exponent 1/T against the student's plain
    softmax; logits [B, C].

    Zheng & Yang 2024, section 3; they tune w_kd a pair of networks. No factor T^2. Exactness as for KD.

    Examples:
        >>> round(make_objective("ttm")(logits, batch).item(), 3)
        0.713
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=1.0, w_kd=1.0, by_kl=True)
    temperature: Positive = 4.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return targets.kl_of_logits(outputs.logits, self.temperature)


@dataclass(frozen=True)
class WTTM(ByRows):
    """The objective is the mean over rows of `U KL(p_T || q_1)`, U = sum_c p_c^(1/T): TTM that trusts even teachers
    more; logits [B, C].

    Zheng & Yang 2024, section 4; they tune w_kd a pair of networks. Exactness as for KD; U is exact on top-k at T 1, 2,
    4.

    Examples:
        >>> round(make_objective("wttm")(logits, batch).item(), 3)
        0.798
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=1.0, w_kd=1.0)
    temperature: Positive = 4.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        rows = targets.kl_of_logits(outputs.logits, self.temperature)
        return targets.power_sum(self.temperature) * rows
