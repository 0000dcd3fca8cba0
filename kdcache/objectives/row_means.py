"""Means over the rows of a batch, by its weights where it has some."""

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch


def mean_of_rows(losses: Tensor, batch: Batch) -> Tensor:
    """The mean of losses [B] over the rows of a batch, by its weights where it has some: sum w l / sum w, and 0 where
    no row counts."""
    if batch.weight is None:
        return losses.mean()
    weight = batch.weight.to(losses.dtype).reshape(-1, *[1] * (losses.ndim - 1)).expand_as(losses)
    total = torch.where(weight > 0, weight * losses, 0.0).sum()
    mean: Tensor = total / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)
    return mean
