"""A mixture of Gaussians whose class probabilities are known: data, the Bayes teacher, and teachers that are worse."""

import numpy as np
import torch
from torch import Tensor, nn

CLASSES, AXES, SPREAD = 4, 10, 0.7


def means() -> Tensor:
    """[CLASSES, AXES] means of the classes, which have unit covariance."""
    return SPREAD * torch.from_numpy(np.random.default_rng(0).standard_normal((CLASSES, AXES))).float()


class Gaussians:
    """`count` rows of the mixture as float pictures [1, 1, AXES], drawn by `seed`."""

    def __init__(self, count: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.labels = generator.integers(CLASSES, size=count).astype(np.int32)
        noise = torch.from_numpy(generator.standard_normal((count, AXES))).float()
        self.images = (means()[self.labels.astype(np.int64)] + noise)[:, None, None]
        self.class_names = [f"component {number}" for number in range(CLASSES)]
        self.ids = [f"{seed}-{number}" for number in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def gaussians(count: int = 1_000, seed: int = 0) -> Gaussians:
    """The data set, as `--data kdcache.pipelines.studies.mixture:gaussians` names it."""
    return Gaussians(count, seed)


class Bayes(nn.Module):
    """log p*(class | x) up to a constant, plus `noise` times fixed random waves over x, over `temperature`: [B, 1, 1,
    AXES] to [B, CLASSES]. The waves are a function of x, so that the teacher answers a row alike each time."""

    waves: Tensor
    centres: Tensor

    def __init__(self, noise: float, temperature: float) -> None:
        super().__init__()
        self.noise, self.temperature = noise, temperature
        waves = np.random.default_rng(1).standard_normal((AXES, CLASSES))
        self.register_buffer("centres", means())
        self.register_buffer("waves", 3.0 * torch.from_numpy(waves).float())

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        logits = -0.5 * (rows[:, None] - self.centres).square().sum(dim=-1)
        return (logits + self.noise * 2**0.5 * torch.sin(rows @ self.waves)) / self.temperature


def bayes(noise: float = 0.0, temperature: float = 1.0) -> Bayes:
    """The teacher, as `--teacher kdcache.pipelines.studies.mixture:bayes` names it."""
    return Bayes(noise, temperature)
