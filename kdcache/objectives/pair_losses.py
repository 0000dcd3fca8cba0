"""The loss of pairs of taps: summed over the layers of a store, averaged over stores."""

from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import TapPair
from kdcache.objectives.targets import mean_of_teachers


def loss_of_pairs(
    loss: Callable[[int, Tensor, Tensor], Tensor],
    pairs: Sequence[Sequence[TapPair]],
    shares: Sequence[float],
    outputs: Outputs,
    batch: Batch,
) -> Tensor:
    """The weighted mean over stores of the sum over a store's pairs of loss(index, student, teacher).

    index: of the pair, counted through all stores. student, teacher: the taps [B, ...] in the student's dtype. Raises
    InvalidInputError for a tap that outputs or batch lack.
    """
    index, losses = count(), []
    for number, of_store in enumerate(pairs):
        parts = []
        for pair in of_store:
            student = outputs.tap(pair.student)
            parts.append(loss(next(index), student, batch.tap(number, pair.teacher).to(student.dtype)))
        losses.append(torch.stack(parts).sum())
    return mean_of_teachers(losses, shares)
