"""Fashion-MNIST in colour: each garment grey, or tinted on its black ground."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies.study_data import FASHION, SIDE
from kdcache.views.built_in import load_fashion_mnist

Tint = Literal["grey", "tinted", "both"]
DARKEST = 0.1  # of a channel of a tint


class Garments:
    """Pictures [3, H, W] u8 of a split, the first `count` of them; those of "both" are first all grey, then all tinted.
    A tint is three numbers from .1 to 1, drawn by `seed`."""

    def __init__(self, split: str, tint: Tint, count: int, seed: int, folder: str) -> None:
        if tint not in ("grey", "tinted", "both"):
            raise InvalidInputError(f"data garments: tint is {tint!r}; choose grey, tinted or both")
        built_in = load_fashion_mnist(Path(folder), split=split, side=SIDE)
        count = count or len(built_in.samples)
        grey = built_in.samples.images[:count].expand(-1, 3, -1, -1)
        tints = np.random.default_rng(seed).uniform(DARKEST, 1.0, size=(len(grey), 3, 1, 1))
        tinted = (grey.double() * torch.from_numpy(tints)).round().to(torch.uint8)
        parts = {"grey": [grey], "tinted": [tinted], "both": [grey, tinted]}[tint]
        self.images = torch.cat([part.contiguous() for part in parts])
        self.labels = np.tile(built_in.samples.labels[:count], len(parts))
        self.class_names = list(built_in.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def garments(
    split: str = "train", tint: Tint = "grey", count: int = 0, seed: int = 0, folder: str = FASHION
) -> Garments:
    """The data set, as `--data kdcache.pipelines.studies.tinted:garments` names it; count 0: all rows."""
    return Garments(split, tint, count, seed, folder)
