"""Parts of a batch: some of its rows, which pass a student by themselves where memory does not hold them all."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from torch import Tensor

from kdcache.objectives.batch import Batch

Rows = TypeVar("Rows", Tensor, "Tensor | None")


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """A batch in `count` parts of consecutive rows, nearly equal; fewer where it has fewer rows. Of several processes
    each has as many parts, for they wait for each other's gradients. `shares` and `negatives` stay those of the
    whole."""
    rows = len(batch.y)
    count = max(min(count, *(batch.shares or (rows,))), 1)
    if count == 1:
        yield batch
        return
    edges = [rows * number // count for number in range(count + 1)]
    for start, stop in pairwise(edges):
        yield rows_of(batch, slice(start, stop))


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch, with all that the batch has of them."""

    def cut(values: Rows) -> Rows:
        return None if values is None else values[rows]

    return replace(
        batch,
        images=batch.images[rows],
        y=batch.y[rows],
        y2=cut(batch.y2),
        lam=cut(batch.lam),
        positions=batch.positions[rows],
        teachers=tuple(soft.map(lambda values: values[rows]) for soft in batch.teachers),
        features=tuple(values[rows] for values in batch.features),
        taps=tuple({name: tap[rows] for name, tap in taps.items()} for taps in batch.taps),
        weight=cut(batch.weight),
        mask=cut(batch.mask),
    )
