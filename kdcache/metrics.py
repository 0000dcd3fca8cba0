"""What validation measures, through torchmetrics: the student against labels, and against its teacher.

Shape letters: B rows, C classes.
"""

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from kdcache.batch import Batch
from kdcache.objectives.targets import Targets, in_dtype


class Validation:
    """Accuracy, NLL (nats) and ECE (15 bins, Guo et al. 2017) on labelled rows; agreement (share of rows with equal top
    class) and KL(teacher || student) in nats at T = 1 on rows with a teacher."""

    def __init__(self, classes: int, device: str) -> None:
        self._accuracy = MulticlassAccuracy(classes, average="micro").to(device)
        self._ece = MulticlassCalibrationError(classes, n_bins=15).to(device)
        self._nll, self._agreement, self._kl = (MeanMetric().to(device) for _ in range(3))
        self._labelled = self._taught = 0

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count one batch; logits [B, C]."""
        known = batch.y >= 0
        if bool(known.any()):
            self._labelled += int(known.sum())
            self._accuracy.update(logits[known], batch.y[known])
            self._ece.update(logits[known].softmax(dim=-1), batch.y[known])
            self._nll.update(torch.nn.functional.cross_entropy(logits[known], batch.y[known]), int(known.sum()))
        for teacher in batch.teachers[:1]:
            self._taught += len(logits)
            targets = Targets((in_dtype(teacher, logits.dtype),))
            self._agreement.update((logits.argmax(dim=-1) == targets.top_class()).float().mean(), len(logits))
            self._kl.update(targets.kl_of_logits(logits, 1.0).mean(), len(logits))

    def results(self) -> dict[str, float]:
        """What was counted; measures without rows are left out."""
        found: dict[str, float] = {}
        if self._labelled:
            found |= {"accuracy": float(self._accuracy.compute()), "nll": float(self._nll.compute())}
            found["ece"] = float(self._ece.compute())
        if self._taught:
            found |= {"agreement": float(self._agreement.compute()), "kl_to_teacher": float(self._kl.compute())}
        return found
