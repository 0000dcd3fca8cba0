"""Counterfactual pictures: what a teacher is surer of, made by its gradient, and kept beside real rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdcache.base.whole_files import make_folder, replacing
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.views.data import Data
from kdcache.views.sources import open_data

STEPS, RATE, SPARSITY = 60, 0.02, 0.01


def counterfactuals(network: nn.Module, views: Tensor) -> Tensor:
    """Views [N, ch, H, W] u8 that `network` is surer of, near `views`.

    Livanos et al. 2024: the squared distance of its probabilities o to o + (round(o) - o) / 2, plus lambda times the
    sum of absolute changes, is minimised by Adam over the prepared picture.
    """
    preparation = Preparation(*default_normalisation(views.shape[1]), "cpu")
    inputs = preparation(views)
    with torch.no_grad():
        answers = network(inputs).softmax(dim=-1)
        targets = answers + (answers.round() - answers) / 2
    change = torch.zeros_like(inputs).requires_grad_()
    optimiser = torch.optim.Adam([change], RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        distance = (network(inputs + change).softmax(dim=-1) - targets).square().sum(dim=-1)
        loss = (distance + SPARSITY * change.abs().flatten(1).sum(dim=-1)).sum()
        loss.backward()
        optimiser.step()
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in default_normalisation(views.shape[1]))
    pixels = ((inputs + change.detach()) * std + mean) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8)


def save(path: Path, images: Tensor, labels: Sequence[int]) -> None:
    """Write pictures and labels, whole or not at all."""
    make_folder(path.parent)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images.numpy(), labels=np.asarray(labels, dtype=np.int32))


class Joined:
    """The rows of a data set, and behind them added pictures."""

    def __init__(self, base: Data, images: Tensor, labels: npt.NDArray[np.int32]) -> None:
        self.base, self.images = base, images
        self.labels = np.concatenate([base.labels, labels])
        self.ids = [*base.ids, *(f"added {number}" for number in range(len(labels)))]
        self.class_names = list(base.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        here = index - len(self.base)
        picture = self.base.samples[index][0] if here < 0 else self.images[here]
        return picture, int(self.labels[index])


def joined(base: str, added: str, rows: str = "", **arguments: Any) -> Joined:
    """The rows of the data set `base` that the file `rows` lists, with the pictures of the file `added`, as `--data
    kdcache.pipelines.studies.counterfactuals:joined` names them."""
    data = open_data(base, {**arguments, **({"rows": rows} if rows else {})})
    with np.load(added, allow_pickle=False) as file:
        return Joined(data, torch.from_numpy(file["images"]), file["labels"])
