"""Knowledge distillation (KD) matches soft labels at one temperature; function matching is its special case."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.by_rows import ByRows
from kdcache.objectives.facts import BOUNDED, Facts, Positive
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


@dataclass(frozen=True)
class KD(ByRows):
    """The objective is `T^2 KL(p_T || q_T)`, with p_T, q_T the softmax of the teacher's and the student's logits [B, C]
    over T.

    Hinton, Vinyals & Dean 2015, section 2. The teacher's entropy is included, so a student that agrees has loss 0.
    Exact on full. On top-k the head is exact and the tail's mass comes from the sketch; one store needs no [B, C]
    target. A ghost tail makes it the KL of k + 1 outcomes, a lower bound. On draws it is the cross-entropy, with the
    gradient of KL on average. Under mixing the teacher saw the mixed picture.

    Examples:
        >>> round(make_objective("kd", {"temperature": 2.0})(logits, batch).item(), 3)
        0.147
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, by_kl=True)
    temperature: Positive = 4.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        rows = targets.kl_of_logits(outputs.logits, self.temperature, tau=self.temperature)
        return self.temperature**2 * rows


@dataclass(frozen=True)
class FunctionMatching(ByRows):
    """The objective is `KL(p_1 || q_1)` alone, with p_1, q_1 at T = 1: a recipe as much as a loss. Beyer et al. 2022,
    section 3.

    Teacher and student see the same crop and the same mixup (extract with --mix mixup), no hard labels take part, and
    training is very long. --objective function-matching sets w_ce 0, w_kd 1, T 1. Exactness as for KD.

    Examples:
        >>> round(make_objective("function-matching")(logits, batch).item(), 3)
        0.072
    """

    facts: ClassVar[Facts] = Facts(topk=BOUNDED, w_ce=0.0, w_kd=1.0, by_kl=True)
    temperature: Positive = 1.0

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return KD(self.temperature).rows(outputs, targets, batch)
