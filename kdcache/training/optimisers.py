"""Optimisers and learning-rate schedules by name."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import cos, pi

import torch
from torch import nn


def build_optimizer(
    network: nn.Module, name: str, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser: SGD with Nesterov momentum, or AdamW. Biases and norms (one axis or none) do not decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def rate_schedule(
    name: str, *, steps: int, warmup: int, milestones: Sequence[int], factor: float
) -> Callable[[int], float]:
    """The multiplier of the peak rate by step: linear warm-up, then cosine to 0, steps at `milestones`, or constant."""

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if name == "cosine":
            return 0.5 * (1.0 + cos(pi * (step - warmup) / max(steps - warmup, 1)))
        if name == "step":
            return float(factor ** bisect_right(milestones, step))
        return 1.0

    return multiplier
