"""Units of work: the requests of a block are cut by memory, and drawn views are dealt to batches a view at a time.

Shape letters: G rows of a request, R rows of a batch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kdcache.store.manifest import Identity
from kdcache.store.plan import GROUP, Mixing
from kdcache.views.view_stack import Drawn

Flags = npt.NDArray[np.bool_]
UNIT_BYTES = 16_000_000  # of a request: all views of some rows, where they fit
GROUP_BYTES = 128_000_000  # of a request under mixing: a whole group, with as many of its views as fit


@dataclass(frozen=True)
class Unit:
    """One view of a request's positions, from `start` on: unmixed images [G, ch, H, W], their mixing, and `absent` [G],
    true for rows without an answer: their sample, or their partner's, could not be read."""

    view: int
    start: int
    images: Tensor
    mixing: Mixing
    absent: Flags

    def cut(self, rows: int) -> "tuple[Unit, Unit]":
        """The first rows and the others, of a unit that is not mixed."""
        images, absent = self.images, self.absent
        first = Unit(self.view, self.start, images[:rows], self.mixing, absent[:rows])
        return first, Unit(self.view, self.start + rows, images[rows:], self.mixing, absent[rows:])


def request_size(identity: Identity, view_count: int, view_bytes: int) -> tuple[int, int]:
    """The numbers of rows and of views that are drawn together."""
    if identity.plan.mix != "none":
        return GROUP, min(view_count, max(1, GROUP_BYTES // (GROUP * view_bytes)))
    rows = GROUP
    while rows > 1 and rows * view_count * view_bytes > UNIT_BYTES:
        rows //= 2
    return rows, min(view_count, max(1, UNIT_BYTES // (rows * view_bytes)))


def units_of(item: Drawn) -> Iterator[Unit]:
    """The units of a request, one a view."""
    start, unread = int(item.request.positions[0]), np.zeros(len(item.request.positions), dtype=bool)
    unread[list(item.unread)] = True
    for view, images, mixing in zip(item.request.views, item.images, item.mixing, strict=True):
        absent = unread | unread[mixing.partners - start] if unread.any() else unread
        yield Unit(view, start, images, mixing, absent)


def batches_of(units: Iterable[Unit], rows: int, *, cut: bool) -> Iterator[list[Unit]]:
    """Batches of so many rows at most, in the order of the units. With `cut` units are cut, so that all but the last
    are full; mixing partners meet in one batch only in whole units."""
    batch: list[Unit] = []
    for unit in units:
        while (room := rows - sum(len(piece.images) for piece in batch)) < len(unit.images):
            if cut and room:
                first, unit = unit.cut(room)
                batch.append(first)
            yield batch
            batch = []
        batch.append(unit)
    yield batch


def batch_mixing(units: list[Unit], rows: int) -> Mixing:
    """The mixing of a whole batch, partners as rows of the batch; padding stays unmixed."""
    partners = np.arange(rows, dtype=np.int64)
    lam, boxes = np.ones(rows), np.zeros((rows, 4), dtype=np.int64)
    start = 0
    for unit in units:
        stop = start + len(unit.images)
        partners[start:stop] = unit.mixing.partners - unit.start + start
        lam[start:stop], boxes[start:stop] = unit.mixing.lam, unit.mixing.boxes
        start = stop
    return Mixing(partners, lam, boxes)
