"""A student and its objective on several processes: the loss and the gradient of the whole batch from shares of it."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdcache.networks.answers import answered
from kdcache.networks.taps import Tapped
from kdcache.objectives.batch import Batch
from kdcache.objectives.joined import AnyObjective, student_taps
from kdcache.objectives.outputs import Outputs
from kdcache.training.gathering import whole_batch
from kdcache.training.ranks import Ranks


class DataParallel:
    """A network and an objective as a step uses them. A process that trains alone calls just these two.

    With several processes an objective that `gathers` is computed on the whole batch everywhere. All others are means
    over rows: each process computes the mean of its rows, times its share of the batch, or of its weights where rows
    are weighed. DistributedDataParallel takes
    the mean of the gradients over processes, so it is handed the loss times their number.

    view: gives one prepared view [1, ch, H, W]. It shows the parameters that no answer depends on, whose gradients
    DistributedDataParallel would wait for. The first process's weights and buffers reach all others here.
    """

    def __init__(self, network: nn.Module, objective: AnyObjective, ranks: Ranks, view: Callable[[], Tensor]) -> None:
        self.objective, self.ranks = objective, ranks
        self.tapped = Tapped(network, names, "student") if (names := student_taps(objective)) else None
        self.answer: nn.Module = self.tapped or network
        if not ranks.alone:
            # one-channel convolutions have strides of two kinds, one of which is copied: nobody can mend that
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            student = _Student(self.answer, view(), self.tapped)
            self.answer = DistributedDataParallel(student, find_unused_parameters=student.has_idle_parameters)

    def outputs(self, images: Tensor) -> Outputs:
        """The student's outputs in f32 for images [B, ch, H, W]: logits [B, C], and the taps that the objective
        sees."""
        answer = self.answer(images)
        if self.tapped is not None:
            return Outputs.tapped(*answer)
        return Outputs(answered(answer, images, "student").float())

    def loss(self, outputs: Outputs, batch: Batch, whole: Batch) -> tuple[Tensor, Tensor]:
        """The loss whose gradient a step takes, and its part of the batch's loss, from the outputs of `batch`: this
        process's rows, or some of them, of which `whole` has all.

        The sum of the parts, over processes too, is the mean over the whole batch's rows.
        """
        if self.ranks.alone:
            loss: Tensor = self.objective(outputs, batch)
            loss = loss if batch is whole else loss * (_weight(batch) / _weight(whole))
            return loss, loss.detach()
        share = self._share(whole)
        share = share if batch is whole else share * (_weight(batch) / _weight(whole))
        if self.objective.gathers(batch.epoch):
            loss = self.objective(*whole_batch(outputs, batch, self.ranks))
            return loss + self._all_parts(outputs), loss.detach() * share
        loss = self.objective(outputs, batch) * share if len(outputs.logits) else outputs.logits.sum()
        return (loss + self._all_parts(outputs)) * self.ranks.world_size, loss.detach()

    def _share(self, batch: Batch) -> Tensor | float:
        """The share of the whole batch's mean over rows that this process has."""
        if batch.mask is not None:
            weight = batch.mask.sum().float()
        elif batch.weight is not None:
            weight = batch.weight.sum()
        else:
            return len(batch.y) / sum(batch.shares)
        return weight / self.ranks.sum(weight).clamp_min(torch.finfo(weight.dtype).tiny)

    def _all_parts(self, outputs: Outputs) -> Tensor | float:
        """Nothing, with a gradient of 0 for every parameter that an output depends on: DistributedDataParallel waits
        for each, and an objective of taps may leave out those behind its layers."""
        if self.tapped is None:
            return 0.0
        features = () if outputs.features is None else (outputs.features,)
        return torch.stack([tensor.sum() * 0.0 for tensor in (outputs.logits, *features, *outputs.taps.values())]).sum()

    def finish_backward(self) -> None:
        """Average the gradients of the objective's parameters over processes; the network's are averaged already."""
        if not self.ranks.alone:
            self.ranks.mean_gradients(self.objective.parameters())


def _weight(batch: Batch) -> Tensor | float:
    """The weight of a batch's rows in a mean over rows: their number, where all count alike, or that of its tokens."""
    if batch.mask is not None:
        return batch.mask.sum().float().clamp_min(1.0)
    if batch.weight is None:
        return float(len(batch.y))
    return batch.weight.sum().clamp_min(torch.finfo(batch.weight.dtype).tiny)


class _Student(nn.Module):
    """A network that also answers no rows: by logits [0, C] and taps [0, ...], whose gradient is 0 for each parameter
    in use, since every process must have a gradient for every parameter."""

    def __init__(self, network: nn.Module, view: Tensor, tapped: Tapped | None) -> None:
        super().__init__()
        self.network, self._is_tapped = network, tapped is not None
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        modes = [(module, module.training) for module in network.modules()]
        logits, taps = self._answer(network.eval(), view)
        for module, training in modes:
            module.training = training
        total = torch.stack([part.sum() for part in (logits, *taps.values())]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        self._parameters_in_use = [parameter for parameter, gradient in pairs if gradient is not None]
        self._shapes = {name: tuple(tap.shape[1:]) for name, tap in taps.items()}
        self._classes = int(logits.shape[-1])
        self.has_idle_parameters = len(self._parameters_in_use) < len(parameters)

    def forward(self, images: Tensor) -> Any:
        if len(images):
            logits, taps = self._answer(self.network, images)
        else:
            zero = torch.stack([parameter.sum() * 0.0 for parameter in self._parameters_in_use]).sum()
            logits = zero.reshape(1, 1).expand(0, self._classes)
            taps = {
                name: zero.reshape((1,) * (len(shape) + 1)).expand(0, *shape) for name, shape in self._shapes.items()
            }
        return (logits, taps) if self._is_tapped else logits

    def _answer(self, network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self._is_tapped:
            logits, taps = network(images)
            return logits, taps
        return answered(network(images), images, "student"), {}
