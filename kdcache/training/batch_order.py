"""Which rows make up which batch: pure functions of (seed, epoch), so that a run's order is a few integers.

An epoch is cut into windows of whole blocks whose soft labels fit in memory together; one window is the rule. Several
processes share each batch; what is in it does not depend on how many they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.store.plan import ViewPlan, key_word, whole_pairs
from kdcache.training.batch_shares import near_equal, share_sizes


@dataclass(frozen=True)
class Window:
    """Positions whose soft labels are in memory at the same time, in ascending runs of blocks."""

    epoch: int
    view: int
    number: int
    positions: IntArray

    @property
    def first(self) -> int | None:
        """The first position where one follows the other without a gap."""
        if not len(self.positions):
            return None
        first, last = int(self.positions[0]), int(self.positions[-1])
        return first if last - first == len(self.positions) - 1 else None

    def places(self, positions: IntArray) -> IntArray:
        """Where in the window some of its positions are."""
        return np.searchsorted(self.positions, positions) if self.first is None else positions - self.first


@dataclass(frozen=True)
class BatchRows:
    """Positions [B] of this process's share of one batch, and where in its own window they are [B]; `shares` says how
    many rows each process has."""

    epoch: int
    view: int
    step: int
    window: int
    positions: IntArray
    rows: IntArray
    shares: tuple[int, ...]


@dataclass(frozen=True)
class Deal:
    """How rows are dealt: `positions` take part, ascending, in blocks of `block` rows, at most `window_rows` in memory
    at once. A range stands for all of its positions and takes no memory. `batch_size` counts the rows of all processes
    together, of which this is number `rank` of `world_size`."""

    positions: IntArray | range
    rows: int
    plan: ViewPlan
    cycle: tuple[int, ...]
    batch_size: int
    seed: int
    block: int
    window_rows: int
    rank: int = 0
    world_size: int = 1

    def view_of(self, epoch: int) -> int:
        """Epoch e uses view e mod V."""
        return self.cycle[epoch % len(self.cycle)]

    @property
    def window_count(self) -> int:
        """Windows of every epoch."""
        return 1 if len(self.positions) <= self.window_rows else -(-len(self._blocks[0]) // self._at_once)

    def window(self, epoch: int, number: int) -> Window:
        """One of the epoch's windows: all positions, or blocks in random order, as many at once as fit."""
        if self.window_count == 1:
            return Window(epoch, self.view_of(epoch), 0, self._all)
        _, starts, stops = self._blocks
        chosen = self._blocks_of(epoch, number)
        spans = [self._span(int(starts[place]), int(stops[place])) for place in chosen.tolist()]
        return Window(epoch, self.view_of(epoch), number, np.concatenate(spans))

    def windows(self, epoch: int) -> list[Window]:
        """The epoch's windows, all of their positions at once."""
        return [self.window(epoch, number) for number in range(self.window_count)]

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        if self.window_count == 1:
            return self._batches_of(len(self.positions))
        sizes = self._blocks[2] - self._blocks[1]
        chosen = (self._blocks_of(epoch, number) for number in range(self.window_count))
        return sum(self._batches_of(int(sizes[places].sum())) for places in chosen)

    def own_window(self, epoch: int, number: int) -> Window:
        """What this process's batches hold of one of the epoch's windows."""
        window = self.window(epoch, number)
        return window if self.world_size == 1 else _chosen(window, [rows for rows, _ in self._deal(window)])

    def batches(self, epoch: int) -> Iterator[BatchRows]:
        """The epoch's batches, equal in size up to a pair; mixing partners stay together where both take part. Of each
        batch this process's share, which may be empty: see `share_sizes`."""
        step = 0
        for number in range(self.window_count):
            window = self.window(epoch, number)
            own, dealt = window, self._deal(window)
            if self.world_size > 1:
                dealt = iter(kept := list(dealt))
                own = _chosen(window, [rows for rows, _ in kept])
            first = window.first
            for rows, shares in dealt:
                positions = window.positions[rows] if first is None else rows + first
                places = rows if own is window else own.places(positions)
                yield BatchRows(epoch, window.view, step, number, positions, places, shares)
                step += 1

    @cached_property
    def _blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """Blocks that take part, and where among `positions` the rows of each start and stop."""
        if isinstance(self.positions, range):
            blocks = np.arange(self.positions[0] // self.block, self.positions[-1] // self.block + 1)
            starts = np.maximum(blocks * self.block - self.positions[0], 0)
        else:
            blocks = np.unique(self.positions // self.block)
            starts = np.searchsorted(self.positions, blocks * self.block)
        return blocks, starts, np.append(starts[1:], len(self.positions))

    @cached_property
    def _all(self) -> IntArray:
        """Made once, since whoever deals and whoever reads ahead hold it at the same time."""
        return self._span(0, len(self.positions))

    def _span(self, start: int, stop: int) -> IntArray:
        if isinstance(self.positions, range):
            return np.arange(start, stop) + self.positions[0]
        return self.positions[start:stop]

    @property
    def _at_once(self) -> int:
        return max(1, self.window_rows // self.block)

    def _blocks_of(self, epoch: int, number: int) -> IntArray:
        """Places among the blocks that take part, ascending."""
        shuffled = self._generator(epoch, "blocks").permutation(len(self._blocks[0]))
        return np.sort(shuffled[number * self._at_once : (number + 1) * self._at_once])

    def _batches_of(self, rows: int) -> int:
        return max(1, -(-rows // self.batch_size))

    def _deal(self, window: Window) -> Iterator[tuple[IntArray, tuple[int, ...]]]:
        """This process's places in the window, a batch at a time, and how many each process has."""
        pairs, singles = self._pairs(window)
        generator = self._generator(window.epoch, f"window {window.number}")
        order = generator.permutation(len(pairs))
        singles = generator.permutation(singles)
        count = self._batches_of(len(window.positions))
        paired, rest = _edges(near_equal(len(pairs), count)), _edges(near_equal(len(singles), count))
        for batch in range(count):
            yield self._share(
                pairs[order[paired[batch] : paired[batch + 1]]],
                singles[rest[count - 1 - batch] : rest[count - batch]],
            )

    def _share(self, pairs: IntArray, singles: IntArray) -> tuple[IntArray, tuple[int, ...]]:
        """This process's rows of a batch's pairs [P, 2] and single rows [R], and how many each process has."""
        if self.world_size > 1:
            paired, single = share_sizes(len(pairs), len(singles), self.world_size)
            shares, mine = tuple((2 * paired + single).tolist()), slice(self.rank, self.rank + 2)
            (start, stop), (first, last) = _edges(paired)[mine], _edges(single)[mine]
            pairs, singles = pairs[start:stop], singles[first:last]
        else:
            shares = (2 * len(pairs) + len(singles),)
        return (np.concatenate([pairs.reshape(-1), singles]) if len(pairs) else singles), shares

    def _pairs(self, window: Window) -> tuple[IntArray, IntArray]:
        """Places in the window of pairs [P, 2] and of those that stand alone [R]."""
        if self.plan.mix == "none":
            return np.empty((0, 2), dtype=np.int64), np.arange(len(window.positions))
        pairs, singles = whole_pairs(self.plan, window.positions, window.view, self.rows)
        return window.places(pairs), window.places(singles)

    def _generator(self, epoch: int, use: str) -> np.random.RandomState:
        word = key_word(self.seed, epoch, 0, f"batches {use}")
        return np.random.RandomState([word & 0xFFFFFFFF, word >> 32])


def _chosen(window: Window, rows: list[IntArray]) -> Window:
    """Some rows of a window, ascending."""
    return replace(window, positions=window.positions[np.sort(np.concatenate(rows))])


def _edges(sizes: IntArray) -> list[int]:
    """Where parts of these sizes begin and end, one after the other."""
    return [0, *np.cumsum(sizes).tolist()]
