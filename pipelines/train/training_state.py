"""A student before its first step, and the state that steps change, which a checkpoint holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdcache.errors import MismatchError
from kdcache.networks.compiling import compile_network
from kdcache.objectives.batch import Batch
from kdcache.objectives.joined import AnyObjective
from kdcache.pipelines.settings import TrainSettings
from kdcache.training.optimisers import build_optimizer


def unweighed(batch: Batch) -> Batch:
    """The batch as it is: all rows count alike."""
    return batch


@dataclass(frozen=True)
class Student:
    """One student before its first step: network and objective on the device, the temperature that is
    recorded, notes on its weights file, the trust [C] of each class that is recorded, and
    `weigh`, which gives each batch its weights."""

    settings: TrainSettings
    network: nn.Module
    objective: AnyObjective
    temperature: float | None
    notes: tuple[str, ...] = ()
    trust: tuple[float, ...] = ()
    weigh: Callable[[Batch], Batch] = unweighed


@dataclass(frozen=True)
class TrainingState:
    """Network, objective, optimiser, loss scaler, and the averaged network where weights are averaged."""

    network: nn.Module
    objective: AnyObjective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None

    @classmethod
    def of(cls, student: Student, device: str) -> "TrainingState":
        """The state before the first step; the network is in training mode from here on."""
        settings, network = student.settings, student.network.train()
        optimizer = build_optimizer(
            nn.ModuleList([network, student.objective]),
            settings.optimizer,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            arguments=settings.optimizer_set,
        )
        averaging = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
        ema = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True) if settings.ema else None
        if settings.compile:
            compile_network(network)
        scaler = torch.amp.GradScaler(device, enabled=settings.precision == "float16")
        return cls(network, student.objective, optimizer, scaler, ema)

    def state_dict(self) -> dict[str, Any]:
        """The states of all parts, by their names in a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all parts from a checkpoint. Raises MismatchError where the student's code makes another network."""
        stored, current = _shapes(state["network"]), _shapes(self.network.state_dict())  # no lazy ones: it was asked
        names = [name for name in sorted(stored.keys() | current.keys()) if stored.get(name) != current.get(name)]
        if names:
            advice = "the student's code or arguments changed: put them back, or choose another folder for a new run"
            differences = [(name, str(stored.get(name)), str(current.get(name))) for name in names[:5]]
            raise MismatchError("the checkpoint is of another network:", differences, advice, ("it", "the student"))
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])


def _shapes(state: dict[str, Any]) -> dict[str, list[int]]:
    """The shapes of a state dict's tensors, by name."""
    return {name: list(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
