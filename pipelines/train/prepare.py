"""All that stands before a training's first batch: inputs, the student with its objective, loaders, the claimed run."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcache.base.devices import chosen_device
from kdcache.base.launch import launched
from kdcache.errors import InvalidInputError
from kdcache.objectives.objective import Objective, Phases
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.objective import build_objective, chosen_temperature
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.student import (
    build_student,
    inputs_of,
    require_answers,
    require_usable,
    train_loader,
    validation_loader,
)
from kdcache.store.lineage import weights_metadata
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.process_group import own_device
from kdcache.training.ranks import Ranks
from kdcache.training.run_claim import claimed_state
from kdcache.views.sources import Data, open_data

FREE = frozenset(
    {"run", "data", "store", "val_store", "calibration_store", "views"}
    | {"workers", "device", "checkpoint_steps", "accept_drift"}
)


@dataclass(frozen=True)
class Inputs:
    """What is opened once, however many students learn from it; `ranks` are the processes that train them."""

    device: str
    data: Data
    stores: list[Store]
    ranks: Ranks = field(default_factory=Ranks)


@dataclass(frozen=True)
class Student:
    """One student before its first step: network and objective on the device, and the temperature that is recorded."""

    settings: TrainSettings
    network: nn.Module
    objective: Objective | Phases
    temperature: float | None


@dataclass(frozen=True)
class Loaders:
    """The batches that train and those that validate; `record` says by identity what they feed."""

    training: Loader
    validating: Loader | None
    record: dict[str, Any]

    @property
    def all(self) -> list[Loader]:
        return [each for each in (self.training, self.validating) if each]


def open_inputs(settings: TrainSettings, ranks: Ranks | None = None) -> Inputs:
    """Device, data set and stores of the settings, or the error that names what is wrong with them."""
    if ranks is None and (several := launched().world_size) > 1:
        raise InvalidInputError(
            f"{several} processes were started, which can train one student together; for several students start one "
            "process, without torchrun"
        )
    device = chosen_device(own_device(settings.device))
    data = open_data(settings.data, settings.data_set)
    return Inputs(device, data, [Store.open(url) for url in settings.store], ranks or Ranks())


def make_student(settings: TrainSettings, inputs: Inputs) -> Student:
    """Seed torch's generators, then build objective and network, as a run that starts anew begins."""
    require_usable(inputs.stores, settings)
    torch.manual_seed(settings.seed)
    temperature = chosen_temperature(settings, inputs.stores)
    objective = build_objective(settings, inputs.stores, temperature).to(inputs.device)
    network = build_student(settings, inputs.data, inputs.stores).to(inputs.device)
    return Student(settings, network, objective, temperature)


def open_loaders(settings: TrainSettings, inputs: Inputs) -> Loaders:
    """Loaders of the training and of the validation split."""
    launch = inputs.ranks.launch
    training = train_loader(settings, inputs.data, inputs.stores, inputs.device, launch)
    validating = validation_loader(settings, inputs.device, launch)
    named = {"train": training, "val": validating}
    return Loaders(training, validating, {name: inputs_of(each) for name, each in named.items() if each})


def open_run(student: Student, inputs: Inputs, loaders: Loaders, held: ExitStack) -> Run:
    """Claim the run's folder, which no other process gets while `held` is open, and stand where its checkpoint does, or
    at the start. Raises MismatchError for a folder of other settings, InvalidInputError for one in use and for a
    student that does not answer the classes."""
    settings, folder, ranks = student.settings, Path(student.settings.run), inputs.ranks
    ranks.together(lambda: require_answers(student.network, inputs.data, loaders.all, settings.precision))
    record = run_record(settings, student.temperature, loaders.record)
    state = claimed_state(folder, record, ranks, held, in_step={"checkpoint_steps": settings.checkpoint_steps})
    metadata = weights_metadata(inputs.stores, start=settings.weights)
    return Run(student.network, student.objective, settings, loaders.training, folder, state, metadata, ranks)


def run_record(settings: TrainSettings, temperature: float | None, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a run's settings.json holds: what must be equal for a run to go on."""
    record = settings.model_dump(mode="json", exclude=set(FREE))
    return {**record, "temperature": temperature, "inputs": inputs}
