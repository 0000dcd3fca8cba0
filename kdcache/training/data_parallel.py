"""A student and its objective on several processes: the loss and the gradient of the whole batch from shares of it."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdcache.objectives.batch import Batch
from kdcache.objectives.objective import Objective, Phases
from kdcache.training.gathering import whole_batch
from kdcache.training.ranks import Ranks


class DataParallel:
    """What a step asks of a network and an objective; alone, just these.

    With several processes an objective that `gathers` is computed on the whole batch everywhere. All others are means
    over rows: each process computes its own, times its rows over the whole batch's. DistributedDataParallel takes the
    mean of the gradients over processes, so what is handed to it is times their number.

    view: gives one prepared view [1, ch, H, W], by which parameters that no answer depends on are found: they would be
    waited for. The first process's weights and buffers reach all others here.
    """

    def __init__(
        self, network: nn.Module, objective: Objective | Phases, ranks: Ranks, view: Callable[[], Tensor]
    ) -> None:
        self.objective, self.ranks = objective, ranks
        self.answer: nn.Module = network
        if not ranks.alone:
            # a convolution of one channel has strides of two kinds, of which one is copied: nobody can mend that
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            answering = _Answering(network, view())
            self.answer = DistributedDataParallel(answering, find_unused_parameters=answering.idle)

    def loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss whose gradient a step takes, and this process's part of the batch's loss: the sum over processes is
        the mean over the whole batch's rows. Logits [B, C] of this process's rows."""
        if self.ranks.alone:
            loss: Tensor = self.objective(logits, batch)
            return loss, loss.detach()
        share = len(logits) / sum(batch.shares)
        if self.objective.gathers(batch.epoch):
            loss = self.objective(*whole_batch(logits, batch, self.ranks))
            return loss, loss.detach() * share
        loss = self.objective(logits, batch) * share if len(logits) else logits.sum()
        return loss * self.ranks.world_size, loss.detach()

    def finish_backward(self) -> None:
        """Share out the gradients of what the objective learns: the network's are shared out already."""
        if not self.ranks.alone:
            self.ranks.mean_gradients(self.objective.parameters())


class _Answering(nn.Module):
    """The student, which without rows answers logits [0, C] whose gradient is 0 for each parameter in use: every
    process must have a gradient for every parameter."""

    def __init__(self, network: nn.Module, view: Tensor) -> None:
        super().__init__()
        self.network = network
        trained = [each for each in network.parameters() if each.requires_grad]
        training = network.training
        logits = network.eval()(view)
        network.train(training)
        found = torch.autograd.grad(logits.sum(), trained, allow_unused=True)
        self._used = [each for each, gradient in zip(trained, found, strict=True) if gradient is not None]
        self._classes = int(logits.shape[-1])
        self.idle = len(self._used) < len(trained)

    def forward(self, images: Tensor) -> Tensor:
        if len(images):
            logits: Tensor = self.network(images)
            return logits
        nothing = torch.stack([each.sum() * 0.0 for each in self._used]).sum()
        return nothing.reshape(1, 1).expand(0, self._classes)
