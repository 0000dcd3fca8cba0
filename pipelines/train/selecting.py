"""Terms of the objective are switched on and off by the drop of the loss on held-out rows, see `Selection`."""

from collections.abc import Sequence

import torch

from kdcache.networks.answers import answered
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.pipelines.train.run import Run
from kdcache.pipelines.train.subclasses import student_subclasses
from kdcache.training.metrics import Validation


def select_terms(run: Run, held_out: Sequence[Batch]) -> None:
    """Count a step of a run whose terms are selected, and choose them anew where that is due. All processes choose
    alike, by the loss over the held-out rows of all."""
    if (selection := run.selection) is not None:
        selection.begin_step(lambda: _loss(run, held_out))


def _loss(run: Run, held_out: Sequence[Batch]) -> float:
    """The mean cross-entropy in nats over labelled held-out rows, in eval mode."""
    subclasses = student_subclasses(run.settings, run.loader.stores)
    validation, network = Validation(subclasses=subclasses), run.network
    modes = [(module, module.training) for module in network.modules()]
    run.ranks.align_buffers(network)

    def measure() -> None:
        with torch.inference_mode():
            for batch in held_out:
                with autocast(run.settings.precision, run.loader.device):
                    output = network(batch.images.clone())  # a network may work in place on its input
                validation.update(answered(output, batch.images, "student").float(), batch)

    network.eval()
    try:
        run.ranks.together(measure)
    finally:
        for module, training in modes:
            module.training = training
    return validation.results(run.ranks)["nll"]
