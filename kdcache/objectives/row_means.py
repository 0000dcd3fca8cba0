"""Losses that are means over rows, which a batch may weigh."""

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.targets import Targets


class ByRows:
    """A term that is the mean of a loss a row, `rows`: so its rows can be weighed."""

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        """The loss of each row [B] in nats."""
        raise NotImplementedError

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return mean_of_rows(self.rows(outputs, targets, batch), batch)


def mean_of_rows(losses: Tensor, batch: Batch) -> Tensor:
    """The mean of losses [B] over the rows of a batch, by its weights where it has some: sum w l / sum w, and 0 where
    no row counts."""
    if batch.weight is None:
        return losses.mean()
    weight = batch.weight.to(losses.dtype).reshape(-1, *[1] * (losses.ndim - 1)).expand_as(losses)
    total = torch.where(weight > 0, weight * losses, 0.0).sum()
    mean: Tensor = total / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)
    return mean
