"""The measures of validation: the student against labels, and against its teacher.

They are sums over rows, so that several processes measure the same as one. Shape letters: B rows, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from kdcache.base.calibration_bins import BINS, calibration_error, calibration_sums
from kdcache.labels.reduction import class_logits
from kdcache.objectives.batch import Batch
from kdcache.objectives.targets import Combine, Targets, in_dtype
from kdcache.training.ranks import Ranks


class Validation:
    """The measures of one validation.

    On labelled rows: accuracy, NLL (nats) and ECE (15 bins, Guo et al. 2017; as torchmetrics counts them). On rows with
    a teacher: agreement (share of rows with equal top class) and KL(teacher || student) in nats at T = 1. Several
    teachers are one, by `combine` and `weights` as in `Targets`. Of `subclasses` a class the student answers each; all
    measures are of classes.
    """

    def __init__(
        self, combine: Combine = "probabilities", weights: tuple[float, ...] = (), *, subclasses: int = 1
    ) -> None:
        self._combine, self._weights, self._subclasses = combine, weights, subclasses
        self._labelled = np.zeros(3)  # rows, hits, summed NLL
        self._taught = np.zeros(3)  # rows, those that agree, summed KL
        self._bins = np.zeros((3, BINS + 1))

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count one batch; logits [B, C], and its soft labels by class."""
        logits = class_logits(logits, self._subclasses)
        has_label = batch.y >= 0
        labels = batch.y[has_label]
        log_probs = torch.log_softmax(logits[has_label], dim=-1)
        top_log_probs, classes = log_probs.max(dim=-1)
        hits = (classes == labels).cpu().numpy()
        losses = -log_probs.gather(-1, labels[:, None])
        self._labelled += (len(hits), hits.sum(), float(losses.cpu().double().sum()))
        self._bins += calibration_sums(top_log_probs.exp().cpu().numpy(), hits)
        if batch.teachers:
            teachers = tuple(in_dtype(teacher, logits.dtype) for teacher in batch.teachers)
            targets = Targets(teachers, combine=self._combine, weights=self._weights)
            agreements = (logits.argmax(dim=-1) == targets.top_class()).sum()
            divergence = targets.kl_of_logits(logits, 1.0).cpu().double().sum()
            self._taught += (len(logits), int(agreements), float(divergence))

    def results(self, ranks: Ranks | None = None) -> dict[str, float]:
        """The measures by name, over the rows of all processes. A measure without rows is left out."""
        sums = np.concatenate([self._labelled, self._taught, self._bins.ravel()])
        total = (ranks or Ranks()).sum(torch.from_numpy(sums)).numpy()
        (rows, hits, loss), (taught_rows, agreements, divergence) = total[:3], total[3:6]
        bins = total[6:].reshape(3, -1)
        measures: dict[str, float] = {}
        if rows:
            measures |= {"accuracy": float(hits / rows), "nll": float(loss / rows), "ece": calibration_error(bins)}
        if taught_rows:
            measures |= {"agreement": float(agreements / taught_rows), "kl_to_teacher": float(divergence / taught_rows)}
        return measures
