"""Texts before objectives: tokens that do not count have no part in any loss."""

import numpy as np
import torch

from kdcache.objectives.batch import Batch
from tests.kits.labels import topk

TEXTS, SEQUENCE, CLASSES = 3, 4, 12
MASK = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)


def batch_of_texts() -> Batch:
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, CLASSES, (TEXTS, SEQUENCE)))
    soft = topk(4, rows=TEXTS * SEQUENCE).to()
    return Batch(
        images=torch.zeros(TEXTS, SEQUENCE, dtype=torch.int64),
        y=torch.where(MASK, y, -1),
        y2=None, lam=None, view=0, epoch=0, step=0, mask=MASK,
        positions=torch.arange(TEXTS * SEQUENCE).reshape(TEXTS, SEQUENCE),
        teachers=(soft.map(lambda values: values.reshape(TEXTS, SEQUENCE, *values.shape[1:])),),
    )  # fmt: skip
