"""One batch: what an objective gets besides the student's outputs."""

from dataclasses import dataclass

from torch import Tensor

from kdcache.labels.soft_labels import SoftLabels


@dataclass(frozen=True)
class Batch:
    """Images, labels and soft labels of some rows, on the device.

    images [B, ch, H, W] f32, normalised and mixed; y [B] i64 hard labels (-1 none); under mixing y2 [B] the partner's
    and lam [B] f32 the weight of y, else None; positions [B] i64; view; epoch and step count from 0; teachers: each
    store's soft labels; features: pooled teacher features [B, D] of each store, or empty; steps: batches of this
    epoch; epochs: of the whole training; shares: the rows of each process, where several share the batch (B may be 0).

    Objectives take any leading axes in place of B: [B, S] for sequences of S positions, lam stays [B].
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
        """Where the training stands, in epochs: 2.5 is the middle of the third."""
        return self.epoch + self.step / self.steps

    @property
    def progress(self) -> float:
        """The share of the training that is done, 0 to 1."""
        return self.time / self.epochs
