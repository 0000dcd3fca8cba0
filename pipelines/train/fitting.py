"""Objectives that are fitted to student and stores before the first step, such as an assignment of channels."""

from collections.abc import Iterator

import torch

from kdcache.base.progress import StopRequest
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.objectives.joined import objectives_in
from kdcache.objectives.outputs import Outputs
from kdcache.pipelines.train.run import Run
from kdcache.training.batch_stream import BatchStream
from kdcache.training.gathering import whole_batch

ROWS = 2048  # of the training split, of the first epoch's view


def fit_objective(run: Run, loader: BatchStream, stop: StopRequest) -> None:
    """Show the first batches of a new run to those terms that have a `fit`, before its first step; the stream and the
    generators are left as they were. Each of several processes sees all rows."""
    fits = [fit for part in objectives_in(run.state.objective) if (fit := getattr(part.term, "fit", None)) is not None]
    for fit in fits:
        with torch.no_grad():
            fit(_answers(run, loader, stop))
        loader.close()
        loader.set_epoch(0)


def _answers(run: Run, loader: BatchStream, stop: StopRequest) -> Iterator[tuple[Outputs, Batch]]:
    """The student's outputs in eval mode and their batches, for `ROWS` rows or an epoch."""
    modes = [(module, module.training) for module in run.network.modules()]
    run.network.eval()
    try:
        loader.set_epoch(0)
        rows = 0
        for batch in run.ranks.each(loader, stop):
            with autocast(run.settings.precision, loader.device):
                outputs = run.parallel.outputs(batch.images)
            yield (outputs, batch) if run.ranks.alone else whole_batch(outputs, batch, run.ranks)
            rows += sum(batch.shares) or len(batch.positions)
            if rows >= ROWS:
                return
    finally:
        for module, training in modes:
            module.training = training
