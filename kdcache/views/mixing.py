"""Mixed views: the images of a batch mixed with those of their partners, as the view plan says."""

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.store.plan import Mixing, ViewPlan, partners_of


def mix_images(images: Tensor, mixing: Mixing, rows: IntArray, kind: str) -> Tensor:
    """Mix prepared float images [B, ch, H, W] on their device; `rows` [B] are the partners' rows in the batch."""
    if kind == "none":
        return images
    partners = images[torch.from_numpy(rows).to(images.device)]
    if kind == "mixup":
        lam = torch.from_numpy(mixing.lam).to(images.device, images.dtype)[:, None, None, None]
        return torch.lerp(partners, images, lam)
    boxes = torch.from_numpy(mixing.boxes).to(images.device)[:, :, None, None]
    ys = torch.arange(images.shape[-2], device=images.device)[None, :, None]
    xs = torch.arange(images.shape[-1], device=images.device)[None, None, :]
    in_box = (xs >= boxes[:, 0]) & (xs < boxes[:, 2]) & (ys >= boxes[:, 1]) & (ys < boxes[:, 3])
    return torch.where(in_box[:, None], partners, images)


def with_partners(plan: ViewPlan, positions: IntArray, view: int, rows: int) -> IntArray:
    """`positions` [B], then the partners that are not among them and are drawn only to be mixed in. `rows` counts the
    store's positions."""
    return np.concatenate([positions, np.setdiff1d(partners_of(plan, positions, view, rows), positions)])


def mix_rows(images: Tensor, mixing: Mixing, positions: IntArray, count: int, kind: str) -> Tensor:
    """Mix the first `count` prepared images. Rows after them, in `images` and `positions`, are partners only."""
    if kind == "none":
        return images[:count]
    sorter = np.argsort(positions)
    rows = np.arange(len(positions))
    rows[:count] = sorter[np.searchsorted(positions, mixing.partners[:count], sorter=sorter)]
    return mix_images(images, mixing, rows, kind)[:count]
