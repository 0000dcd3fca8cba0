"""Stage two: students on replayed views and cached soft labels; without a store, plain supervised training."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.prepare import Loaders, make_student, open_inputs, open_loaders, open_run
from kdcache.pipelines.train.run import Run, TrainSummary
from kdcache.training.loader import Loader
from kdcache.training.metrics import Validation
from kdcache.training.process_group import open_ranks, own_device
from kdcache.training.ranks import Ranks

RESUME = "the checkpoint is written; run the same command again to go on"


class Company(Protocol):
    """What keeps runs apart that one stream of batches serves."""

    def going(self, run: Run) -> bool:
        """Whether a run still takes part."""
        ...

    def turn(self, run: Run) -> AbstractContextManager[None]:
        """Surrounds whatever a run does."""
        ...

    def batch(self, run: Run, batch: Batch) -> Batch:
        """A training batch as the run gets it."""
        ...

    def images(self, run: Run, batch: Batch) -> Tensor:
        """[B, ch, H, W] of a validation batch as the run gets them."""
        ...


class Alone:
    """The company of a run that has the process to itself."""

    def going(self, run: Run) -> bool:
        return True

    def turn(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def batch(self, run: Run, batch: Batch) -> Batch:
        return batch

    def images(self, run: Run, batch: Batch) -> Tensor:
        return batch.images


def train(settings: TrainSettings, *, progress: Progress = silent, stop: StopRequest | None = None) -> TrainSummary:
    """Train a student, or go on with the run that is there; a killed run ends equal to one that was not.

    Raises MismatchError for a store that does not fit or a run of other settings, ReplayError at the first row whose
    pixels are not those the teacher saw, InterruptedRunError once `stop` is requested and the checkpoint is written.
    """
    with open_ranks(own_device(settings.device)) as ranks, ExitStack() as held:
        inputs = ranks.together(lambda: open_inputs(settings, ranks))
        student = ranks.together(lambda: make_student(settings, inputs))
        loaders = ranks.together(lambda: open_loaders(settings, inputs))
        run = open_run(student, inputs, loaders, held)
        serve([run], loaders, Alone(), progress=progress, stop=stop or StopRequest(), ranks=ranks)
        return run.summary()


def serve(
    runs: Sequence[Run],
    loaders: Loaders,
    company: Company,
    *,
    progress: Progress,
    stop: StopRequest,
    ranks: Ranks | None = None,
) -> None:
    """Hand each batch to every run that stands there: the stream begins where the run that is least far does, and each
    joins it where its checkpoint stands. `ranks`: the processes that take these steps together, by default this one.

    Raises InterruptedRunError once `stop` is requested and every run has written its checkpoint.
    """
    training, ranks = loaders.training, ranks or Ranks()
    training.start_epoch, training.start_step = min(run.start for run in runs)
    stop, progress = ranks.stopping(stop), progress if ranks.first else silent
    began = time.monotonic()
    for batch in ranks.each(training, stop):
        here = [run for run in runs if company.going(run) and run.start <= (batch.epoch, batch.step)]
        if not here:  # who was here has failed; the others stand further on
            break
        for run in here:
            with company.turn(run):
                run.step(company.batch(run, batch))
        lead = max(here, key=lambda run: run.steps_done)
        progress(f"epoch {batch.epoch + 1} of {lead.settings.epochs}", lead.steps_done, lead.steps_total)
        here = list(filter(company.going, here))
        if batch.step + 1 == training.steps(batch.epoch):
            _end_epoch(here, loaders, company, ranks, batch.epoch, began)
            began = time.monotonic()
        else:
            _save(here, company, batch, at_once=stop.requested)
        stop.check(RESUME)
    else:
        ranks.agree()  # the first process has written the end
        return
    if left := list(filter(company.going, runs)):
        serve(left, loaders, company, progress=progress, stop=stop, ranks=ranks)


def _end_epoch(runs: list[Run], loaders: Loaders, company: Company, ranks: Ranks, epoch: int, began: float) -> None:
    found = validate(runs, loaders.validating, company, ranks)
    for run in filter(company.going, runs):
        with company.turn(run):
            run.end_epoch(epoch, found.get(run, {}), time.monotonic() - began)


def _save(runs: list[Run], company: Company, batch: Batch, *, at_once: bool) -> None:
    for run in runs:
        every = run.settings.checkpoint_steps
        if at_once or (every and run.steps_done % every == 0):
            with company.turn(run):
                run.save(batch.epoch, batch.step + 1)


def validate(runs: Sequence[Run], loader: Loader | None, company: Company, ranks: Ranks) -> dict[Run, dict[str, float]]:
    """Each run's measures over the validation split, in eval mode, from one pass; empty where there is no split."""
    if loader is None:
        return {}
    measured = {run: Validation() for run in runs}
    for run in runs:
        ranks.align_buffers(run.judged)
        run.judged.eval()
    ranks.together(lambda: _measure(measured, loader, company))
    for run in runs:
        run.judged.train()
    return {run: measures.results(ranks) for run, measures in measured.items()}


def _measure(measured: dict[Run, Validation], loader: Loader, company: Company) -> None:
    with torch.inference_mode():
        for batch in loader:
            for run in filter(company.going, measured) if len(batch.positions) else ():
                with company.turn(run), autocast(run.settings.precision, loader.device):
                    measured[run].update(run.judged(company.images(run, batch)).float(), batch)
