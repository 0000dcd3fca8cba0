"""Isolation keeps runs that share a stream apart: each does its work in a turn of its own."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.pipelines.train.run import Run


class Isolation(Protocol):
    """A run does its work through these four methods, so that it neither changes nor stops the other runs."""

    def active(self, run: Run) -> bool:
        """True while a run takes part; False once it failed."""

    def turn(self, run: Run) -> AbstractContextManager[None]:
        """The context in which a run does all its work."""

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The training batch that a run gets."""

    def images(self, run: Run, batch: Batch) -> Tensor:
        """The images [B, ch, H, W] of a validation batch that a run gets."""


class NoIsolation:
    """The isolation of a run that has the process to itself: it needs none."""

    def active(self, run: Run) -> bool:
        return True

    def turn(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def batch(self, run: Run, batch: Batch) -> Batch:
        return batch

    def images(self, run: Run, batch: Batch) -> Tensor:
        return batch.images
