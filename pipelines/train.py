"""Stage two: a student on replayed views and cached soft labels; without a store, plain supervised training."""

import time
from pathlib import Path

import torch
from torch import nn

from kdcache.checkpoints import claim_run, load_state
from kdcache.datasets import open_data
from kdcache.lineage import weights_metadata
from kdcache.loader import Loader
from kdcache.metrics import Validation
from kdcache.pipelines.job import chosen_device
from kdcache.pipelines.objective import build_objective, chosen_temperature
from kdcache.pipelines.run import Run, TrainSummary, autocast
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.student import (
    build_student,
    inputs_of,
    require_answers,
    require_usable,
    train_loader,
    validation_loader,
)
from kdcache.progress import Progress, StopRequest, silent
from kdcache.store import Store

FREE = frozenset(
    {"run", "data", "store", "val_store", "calibration_store", "train_views"}
    | {"workers", "device", "checkpoint_steps", "accept_drift"}
)
RESUME = "the checkpoint is written; run the same command again to go on"


def train(settings: TrainSettings, *, progress: Progress = silent, stop: StopRequest | None = None) -> TrainSummary:
    """Train a student, or go on with the run that is there; a killed run ends equal to one that was not.

    Raises MismatchError for a store that does not fit or a run of other settings, ReplayError at the first row whose
    pixels are not those the teacher saw, InterruptedRunError once `stop` is requested and the checkpoint is written.
    """
    stop = stop or StopRequest()
    device, folder = chosen_device(settings.device), Path(settings.run)
    data = open_data(settings.data, settings.data_set)
    stores = [Store.open(url) for url in settings.store]
    require_usable(stores, settings)
    torch.manual_seed(settings.seed)
    temperature = chosen_temperature(settings, stores)
    objective = build_objective(settings, stores, temperature).to(device)
    network = build_student(settings, data, stores).to(device)
    training = train_loader(settings, data, stores, device)
    validating = validation_loader(settings, device)
    require_answers(network, data, [each for each in (training, validating) if each], settings.precision)
    record = settings.model_dump(mode="json", exclude=set(FREE))
    record["temperature"] = temperature
    record["inputs"] = {name: inputs_of(each) for name, each in (("train", training), ("val", validating)) if each}
    resumed = claim_run(folder, record)
    state = load_state(folder) if resumed else None
    run = Run(network, objective, settings, training, folder, state, weights_metadata(stores, start=settings.weights))
    steps = [training.steps(epoch) for epoch in range(settings.epochs)]
    began = time.monotonic()
    for batch in training:
        run.step(batch)
        progress(f"epoch {batch.epoch + 1} of {settings.epochs}", run.steps_done, run.steps_total)
        if batch.step + 1 == steps[batch.epoch]:
            run.end_epoch(batch.epoch, validate(run.judged, validating, settings, device), time.monotonic() - began)
            began = time.monotonic()
        elif stop.requested or (settings.checkpoint_steps and run.steps_done % settings.checkpoint_steps == 0):
            run.save(batch.epoch, batch.step + 1)
        stop.check(RESUME)
    return run.summary()


def validate(network: nn.Module, loader: Loader | None, settings: TrainSettings, device: str) -> dict[str, float]:
    """Measures over the validation split, in eval mode; empty where there is none."""
    if loader is None:
        return {}
    network.eval()
    measured: Validation | None = None
    with torch.inference_mode(), autocast(settings.precision, device):
        for batch in loader:
            logits = network(batch.images).float()
            measured = measured or Validation(logits.shape[-1], device)
            measured.update(logits, batch)
    network.train()
    return measured.results() if measured else {}
