"""A batch holds all that an objective is given besides the student's outputs."""

from dataclasses import dataclass

from torch import Tensor

from kdcache.labels.soft_labels import SoftLabels


@dataclass(frozen=True)
class Batch:
    """A batch holds images, hard labels and soft labels of B rows, on the device.

    images: [B, ch, H, W] f32, normalised and mixed. y: [B] i64, hard labels, -1 for none. y2: [B] i64, under mixing the
    partner's hard labels, else None. lam: [B] f32, under mixing the weight of y, else None. positions: [B] i64. view:
    the view of all rows. epoch, step: both count from 0. teachers: the soft labels of each store. features: [B, D],
    pooled teacher features of each store, or empty. steps: the number of batches in this epoch. epochs: the number of
    epochs in the whole training. shares: the number of rows of each process, where several share the batch; B may be 0.

    Objectives take any leading axes in place of B: [B, S] for sequences of S positions, where lam stays [B].
    """

    images: Tensor
    y: Tensor
    y2: Tensor | None
    lam: Tensor | None
    positions: Tensor
    view: int
    epoch: int
    step: int
    teachers: tuple[SoftLabels, ...] = ()
    features: tuple[Tensor, ...] = ()
    steps: int = 1
    epochs: int = 1
    shares: tuple[int, ...] = ()

    @property
    def time(self) -> float:
        """The time in epochs: 2.5 is the middle of the third epoch."""
        return self.epoch + self.step / self.steps

    @property
    def progress(self) -> float:
        """The share of the training that is done, 0 to 1."""
        return self.time / self.epochs
