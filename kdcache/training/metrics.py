"""The measures of validation: the student against labels, and against its teacher.

They are sums over rows, so that several processes measure the same as one. Shape letters: B rows, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.calibration_bins import BINS, calibration_error, calibration_sums
from kdcache.labels.reduction import class_logits
from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Combine, Targets, in_dtype
from kdcache.objectives.tokens import counted_rows
from kdcache.training.ranks import Ranks


class Validation:
    """The measures of one validation.

    On labelled rows: accuracy, NLL (nats) and ECE (15 bins, Guo et al. 2017; as torchmetrics counts them). On rows with
    a teacher: agreement (share of rows with equal top class) and KL(teacher || student) in nats at T = 1. Several
    teachers are one, by `combine` and `weights` as in `Targets`. Of `subclasses` a class the student answers each; all
    measures are of classes.

    Of texts a row is a token that counts, and there are perplexity, exp of NLL, and bits a byte: the NLL of all tokens
    in bits by the bytes that they stand for, `token_bytes` [C], where these are known.
    """

    def __init__(
        self,
        combine: Combine = "probabilities",
        weights: tuple[float, ...] = (),
        *,
        subclasses: int = 1,
        token_bytes: IntArray | None = None,
    ) -> None:
        self._combine, self._weights, self._subclasses = combine, weights, subclasses
        self._token_bytes = token_bytes
        self._texts = np.zeros(2)  # tokens that count, and their bytes
        self._labelled = np.zeros(3)  # rows, hits, summed NLL
        self._taught = np.zeros(3)  # rows, those that agree, summed KL
        self._bins = np.zeros((3, BINS + 1))

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Count one batch; logits [B, C], or [B, S, C] of texts, and its soft labels by class."""
        is_of_texts = batch.mask is not None
        outputs, batch = counted_rows(Outputs(logits), batch)
        logits = class_logits(outputs.logits, self._subclasses)
        if is_of_texts:
            self._count_tokens(batch.y)
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

    def _count_tokens(self, labels: Tensor) -> None:
        ids, sizes = labels.cpu().numpy(), self._token_bytes
        fits = sizes is not None and int(ids.max(initial=-1)) < len(sizes)
        self._texts += (len(ids), sizes[ids].sum() if sizes is not None and fits else np.nan)

    def results(self, ranks: Ranks | None = None) -> dict[str, float]:
        """The measures by name, over the rows of all processes. A measure without rows is left out."""
        sums = np.concatenate([self._labelled, self._taught, self._texts, self._bins.ravel()])
        total = (ranks or Ranks()).sum(torch.from_numpy(sums)).numpy()
        (rows, hits, loss), (taught_rows, agreements, divergence) = total[:3], total[3:6]
        (tokens, byte_count), bins = total[6:8], total[8:].reshape(3, -1)
        measures: dict[str, float] = {}
        if rows:
            measures |= {"accuracy": float(hits / rows), "nll": float(loss / rows), "ece": calibration_error(bins)}
        if rows and tokens:
            measures["perplexity"] = float(np.exp(loss / rows))
        if rows and byte_count > 0:
            measures["bits_a_byte"] = float(loss / np.log(2) / byte_count)
        if taught_rows:
            measures |= {"agreement": float(agreements / taught_rows), "kl_to_teacher": float(divergence / taught_rows)}
        return measures
