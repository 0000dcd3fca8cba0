"""Cross-entropy with hard labels, mixed as the images are: the part of every objective that needs no teacher."""

import torch
from torch import Tensor

from kdcache.loader import Batch


def hard_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Mean over rows of lam CE(y) + (1 - lam) CE(y2), in nats; rows with a label of -1 count as 0.

    logits [B, C]. Zhang et al. 2018 (mixup), equation of section 2; plain cross-entropy where nothing is mixed.
    """
    losses = torch.nn.functional.cross_entropy(logits, batch.y, ignore_index=-1, reduction="none")
    if batch.y2 is not None and batch.lam is not None:
        other = torch.nn.functional.cross_entropy(logits, batch.y2, ignore_index=-1, reduction="none")
        losses = torch.lerp(other, losses, batch.lam.to(losses.dtype))
    return losses.mean()
