"""Optimisers and learning-rate schedules by name."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import cos, pi
from typing import Any

import torch
from torch import nn

from kdcache.base.specs import load_callable
from kdcache.errors import InvalidInputError


def build_optimizer(
    network: nn.Module,
    name: str,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    arguments: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser: SGD with Nesterov momentum, AdamW, or a user's own by its spec. Biases and norms (one axis or
    none) do not decay. Raises InvalidInputError.

    A callable of the user's is called as `callable(groups, lr=lr, **arguments)`, with groups of parameters as torch's
    optimisers take them, each with its `weight_decay`.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if ":" in name:
        return _own_optimizer(name, groups, {"lr": lr, **(arguments or {})})
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def _own_optimizer(spec: str, groups: list[dict[str, Any]], arguments: dict[str, Any]) -> torch.optim.Optimizer:
    factory = load_callable(spec, "optimizer")
    try:
        optimizer = factory(groups, **arguments)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"optimizer {spec} with {arguments} cannot be built: {error}; it is called as callable(groups, lr=..., "
            "**optimizer_set), with groups of parameters as torch's optimisers take them"
        ) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidInputError(
            f"optimizer {spec} returned a {type(optimizer).__name__}; it must return a torch.optim.Optimizer"
        )
    return optimizer


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
