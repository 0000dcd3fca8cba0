"""A student and its objective on several processes: the loss and the gradient of the whole batch from shares of it."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdcache.networks.answers import answered
from kdcache.objectives.batch import Batch
from kdcache.objectives.joined import AnyObjective
from kdcache.objectives.outputs import Outputs
from kdcache.training.gathering import whole_batch
from kdcache.training.ranks import Ranks


class DataParallel:
    """A network and an objective as a step uses them. A process that trains alone calls just these two.

    With several processes an objective that `gathers` is computed on the whole batch everywhere. All others are means
    over rows: each process computes the mean of its rows, times its share of the batch. DistributedDataParallel takes
    the mean of the gradients over processes, so it is handed the loss times their number.

    view: gives one prepared view [1, ch, H, W]. It shows the parameters that no answer depends on, whose gradients
    DistributedDataParallel would wait for. The first process's weights and buffers reach all others here.
    """

    def __init__(self, network: nn.Module, objective: AnyObjective, ranks: Ranks, view: Callable[[], Tensor]) -> None:
        self.objective, self.ranks = objective, ranks
        self.answer: nn.Module = network
        if not ranks.alone:
            # one-channel convolutions have strides of two kinds, one of which is copied: nobody can mend that
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            student = _Student(network, view())
            self.answer = DistributedDataParallel(student, find_unused_parameters=student.has_idle_parameters)

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss whose gradient a step takes, and this process's part of the batch's loss, from its outputs.

        The sum of the parts over processes is the mean over the whole batch's rows.
        """
        if self.ranks.alone:
            loss: Tensor = self.objective(outputs, batch)
            return loss, loss.detach()
        share = len(outputs.logits) / sum(batch.shares)
        if self.objective.gathers(batch.epoch):
            loss = self.objective(*whole_batch(outputs, batch, self.ranks))
            return loss, loss.detach() * share
        loss = self.objective(outputs, batch) * share if len(outputs.logits) else outputs.logits.sum()
        return loss * self.ranks.world_size, loss.detach()

    def finish_backward(self) -> None:
        """Average the gradients of the objective's parameters over processes; the network's are averaged already."""
        if not self.ranks.alone:
            self.ranks.mean_gradients(self.objective.parameters())


class _Student(nn.Module):
    """A network that also answers no rows: by logits [0, C], whose gradient is 0 for each parameter in use, since every
    process must have a gradient for every parameter."""

    def __init__(self, network: nn.Module, view: Tensor) -> None:
        super().__init__()
        self.network = network
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        mode = network.training
        logits = answered(network.eval()(view), len(view), "student")
        network.train(mode)
        gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        self._parameters_in_use = [parameter for parameter, gradient in pairs if gradient is not None]
        self._classes = int(logits.shape[-1])
        self.has_idle_parameters = len(self._parameters_in_use) < len(parameters)

    def forward(self, images: Tensor) -> Tensor:
        if len(images):
            return answered(self.network(images), len(images), "student")
        zero = torch.stack([parameter.sum() * 0.0 for parameter in self._parameters_in_use]).sum()
        return zero.reshape(1, 1).expand(0, self._classes)
