"""Hard labels give the cross-entropy, and sums over the two labels of a row where images are mixed."""

from collections.abc import Callable

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.row_means import mean_of_rows


def hard_cross_entropy(logits: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Mean over rows of lam CE(y) + (1 - lam) CE(y2), in nats; rows with a label of -1 count as 0.

    logits [B, C]. Zhang et al. 2018 (mixup), section 2; plain cross-entropy where nothing is mixed. smoothing: the
    share of each label that is spread over all C classes, Szegedy et al. 2016, section 7.
    """
    if batch.y2 is None and batch.weight is None:
        flat, y = logits.flatten(0, -2), batch.y.flatten()
        losses = torch.nn.functional.cross_entropy(flat, y, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        return losses / max(len(y), 1)
    return mean_of_rows(hard_rows(logits, batch, smoothing), batch)


def hard_rows(logits: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """The losses [B] of which `hard_cross_entropy` is the mean."""
    return rows_over_labels(batch, lambda y, which: cross_entropy_rows(logits, y, smoothing))


def cross_entropy_rows(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label] for each row, or over the smoothed label: logits [B, C], labels [B] of 0 or more."""
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), reduction="none", label_smoothing=smoothing
    )
    return losses.reshape(labels.shape)


def rows_over_labels(batch: Batch, rows: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The losses [B] lam rows(y, 0) + (1 - lam) rows(y2, 1); rows(y, 0) where nothing is mixed.

    `rows` takes labels [B], 0 in place of -1, and returns a loss a row [B]; rows without a label then count as 0.
    """
    losses = _of_labels(batch.y, rows(batch.y.clamp_min(0), 0))
    if batch.y2 is not None and batch.lam is not None:
        second = _of_labels(batch.y2, rows(batch.y2.clamp_min(0), 1))
        lam = batch.lam.to(losses.dtype).reshape(-1, *[1] * (losses.ndim - 1))
        losses = torch.lerp(second, losses, lam)
    return losses


def _of_labels(labels: Tensor, losses: Tensor) -> Tensor:
    return torch.where(labels >= 0, losses, 0.0)
