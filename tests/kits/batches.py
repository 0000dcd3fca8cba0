"""The batches of a loader as tests read them: all epochs that are left, one after another."""

from collections.abc import Iterator

from kdcache.objectives.batch import Batch
from kdcache.training.loader import Loader


def batches_left(loader: Loader) -> Iterator[Batch]:
    """The batches from the loader's place to the end of its last epoch."""
    for _ in range(loader.state_dict()["epoch"], loader.epochs):
        yield from loader
