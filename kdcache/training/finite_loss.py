"""The check that a training's loss is finite: it stops at the first that is not, and names the largest inputs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdcache.errors import KdcacheError
from kdcache.objectives.batch import Batch

EVERY = 50  # steps between checks on an accelerator, each of which waits for it


class FiniteLossCheck:
    """The check of every step's loss. On an accelerator it notes each step's loss and largest inputs, and looks at
    several steps at once. On a CPU it looks at each loss, and at the inputs of one that is not finite."""

    def __init__(self, device: str) -> None:
        self._every = 1 if torch.device(device).type == "cpu" else EVERY
        self._notes: list[tuple[Batch, Tensor]] = []

    def add(self, batch: Batch, logits: Tensor, loss: Tensor) -> None:
        """Note one step; logits [B, C] of the student. Raises KdcacheError as `check` does."""
        if self._every == 1 and math.isfinite(float(loss.detach())):
            return
        with torch.no_grad():
            numbers = [loss.detach().reshape(1), *_largest(batch.images.float()), *_largest(logits)]
            self._notes.append((_without_tensors(batch), torch.cat([number.float().reshape(1) for number in numbers])))
        if len(self._notes) >= self._every:
            self.check()

    def check(self) -> None:
        """Look at the steps noted. Raises KdcacheError that names the first whose loss is not finite, and its largest
        inputs."""
        notes, self._notes = self._notes, []
        if not notes:
            return
        table = torch.stack([numbers for _, numbers in notes]).tolist()
        for (batch, _), numbers in zip(notes, table, strict=True):
            if not math.isfinite(numbers[0]):
                raise KdcacheError(_explanation(batch, numbers))


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest absolute value [] of a batch (NaN counts as the largest) and its row []."""
    rows = torch.linalg.vector_norm(values.detach().flatten(1), torch.inf, dim=1)
    largest, row = rows.max(dim=0)
    return largest, row


def _without_tensors(batch: Batch) -> Batch:
    """The part of a batch that the message needs: positions, view, epoch, step."""
    empty = torch.empty(0)
    return Batch(empty, empty, None, None, batch.positions, batch.view, batch.epoch, batch.step)


def _explanation(batch: Batch, numbers: Sequence[float]) -> str:
    loss, image, image_row, logit, logit_row = numbers
    positions = (batch.positions if batch.positions.ndim == 1 else batch.positions[:, 0]).tolist()
    place = f"epoch {batch.epoch + 1}, step {batch.step + 1} (view {batch.view}, {len(positions)} rows)"
    return (
        f"the loss is {loss} at {place}; the largest pixel is {image:.4g}, at position {positions[int(image_row)]}, "
        f"the student's largest logit {logit:.4g}, at position {positions[int(logit_row)]}; lower --lr, add "
        "--warmup-epochs, or look at these samples"
    )
