"""What validation measures: the student against labels, and against its teacher.

Sums over rows, so that several processes measure what one does. Shape letters: B rows, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.targets import Targets, in_dtype
from kdcache.training.ranks import Ranks
from kdcache.whole_store.calibrate import BINS, calibration_sums


class Validation:
    """Accuracy, NLL (nats) and ECE (15 bins, Guo et al. 2017; as torchmetrics counts them) on labelled rows; agreement
    (share of rows with equal top class) and KL(teacher || student) in nats at T = 1 on rows with a teacher."""

    def __init__(self) -> None:
        self._labelled = np.zeros(3)  # rows, right ones, summed NLL
        self._taught = np.zeros(3)  # rows, those that agree, summed KL
        self._bins = np.zeros((3, BINS + 1))

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count one batch; logits [B, C]."""
        known = batch.y >= 0
        chosen, labels = logits[known], batch.y[known]
        log_q = torch.log_softmax(chosen, dim=-1)
        best, top = log_q.max(dim=-1)
        right = (top == labels).cpu().numpy()
        losses = -log_q.gather(-1, labels[:, None])
        self._labelled += (len(right), right.sum(), float(losses.cpu().double().sum()))
        self._bins += calibration_sums(best.exp().cpu().numpy(), right)
        for teacher in batch.teachers[:1]:
            targets = Targets((in_dtype(teacher, logits.dtype),))
            agreeing = (logits.argmax(dim=-1) == targets.top_class()).sum()
            self._taught += (len(logits), int(agreeing), float(targets.kl_of_logits(logits, 1.0).cpu().double().sum()))

    def results(self, ranks: Ranks | None = None) -> dict[str, float]:
        """What was counted, on all of some processes; measures without rows are left out."""
        own = np.concatenate([self._labelled, self._taught, self._bins.ravel()])
        total = (ranks or Ranks()).sum(torch.from_numpy(own)).numpy()
        (rows, right, loss), (taught, agreeing, divergence), bins = total[:3], total[3:6], total[6:].reshape(3, -1)
        found: dict[str, float] = {}
        if rows:
            ece = np.abs(bins[2] - bins[1]).sum() / rows
            found |= {"accuracy": float(right / rows), "nll": float(loss / rows), "ece": float(ece)}
        if taught:
            found |= {"agreement": float(agreeing / taught), "kl_to_teacher": float(divergence / taught)}
        return found
