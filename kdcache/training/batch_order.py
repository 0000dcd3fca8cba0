"""The order of batches: a pure function of (seed, epoch), so that a run's order is a few integers.

An epoch is cut into windows of whole blocks whose soft labels fit in memory together; one window is the rule. Several
processes share each batch, and its rows do not depend on their number.
"""

from collections.abc import Iterable, Iterator
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
        """The first position, where all follow one another without a gap; None elsewhere."""
        if not len(self.positions):
            return None
        start, stop = int(self.positions[0]), int(self.positions[-1]) + 1
        return start if stop - start == len(self.positions) else None

    def places(self, positions: IntArray) -> IntArray:
        """The places of some positions in the window: indices of its `positions`."""
        return np.searchsorted(self.positions, positions) if self.first is None else positions - self.first


@dataclass(frozen=True)
class BatchRows:
    """This process's share of one batch: `positions` [B], and `rows` [B], their places in the process's own window.

    `shares` are the numbers of rows of the processes, by rank.
    """

    epoch: int
    view: int
    step: int
    window: int
    positions: IntArray
    rows: IntArray
    shares: tuple[int, ...]


@dataclass(frozen=True)
class BatchOrder:
    """The batches of every epoch, from a seed.

    positions: those that take part, ascending; a range stands for all of its positions and takes no memory.
    rows: the number of positions of the store. cycle: the views that epochs use in turn.
    batch_size: rows of a batch, over all processes. This process is number `rank` of `world_size`.
    block: rows of a block. window_rows: the most rows whose soft labels are in memory at once.
    """

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
        """The view of an epoch: epoch e uses view e mod V of the cycle."""
        return self.cycle[epoch % len(self.cycle)]

    @property
    def window_count(self) -> int:
        """The number of windows, the same in every epoch."""
        return 1 if len(self.positions) <= self.window_rows else -(-len(self._blocks[0]) // self._blocks_at_once)

    def window(self, epoch: int, number: int) -> Window:
        """One of the epoch's windows: all positions, or blocks in random order, as many at once as fit."""
        if self.window_count == 1:
            return Window(epoch, self.view_of(epoch), 0, self._all)
        _, starts, stops = self._blocks
        blocks = self._window_blocks(epoch, number)
        parts = [self._slice(int(starts[block]), int(stops[block])) for block in blocks.tolist()]
        return Window(epoch, self.view_of(epoch), number, np.concatenate(parts))

    def windows(self, epoch: int) -> list[Window]:
        """All windows of the epoch, with all of their positions in memory."""
        return [self.window(epoch, number) for number in range(self.window_count)]

    def steps(self, epoch: int) -> int:
        """The number of batches of an epoch."""
        if self.window_count == 1:
            return self._batch_count(len(self.positions))
        sizes = self._blocks[2] - self._blocks[1]
        windows = (self._window_blocks(epoch, number) for number in range(self.window_count))
        return sum(self._batch_count(int(sizes[blocks].sum())) for blocks in windows)

    def own_window(self, epoch: int, number: int) -> Window:
        """The part of one of the epoch's windows that this process's batches hold."""
        window = self.window(epoch, number)
        return window if self.world_size == 1 else _part(window, [places for places, _ in self._deal(window)])

    def batches(self, epoch: int) -> Iterator[BatchRows]:
        """The epoch's batches, equal in size up to a pair; mixing partners stay together where both take part.

        Each is this process's share of the batch, which may be empty: see `share_sizes`.
        """
        step = 0
        for number in range(self.window_count):
            window = own_window = self.window(epoch, number)
            deals: Iterable[tuple[IntArray, tuple[int, ...]]] = self._deal(window)
            if self.world_size > 1:
                deals = list(deals)
                own_window = _part(window, [places for places, _ in deals])
            first = window.first
            for places, shares in deals:
                positions = window.positions[places] if first is None else places + first
                rows = places if own_window is window else own_window.places(positions)
                yield BatchRows(epoch, window.view, step, number, positions, rows, shares)
                step += 1

    @cached_property
    def _blocks(self) -> tuple[IntArray, IntArray, IntArray]:
        """Blocks that take part, and the starts and stops of their rows among `positions`."""
        if isinstance(self.positions, range):
            blocks = np.arange(self.positions[0] // self.block, self.positions[-1] // self.block + 1)
            starts = np.maximum(blocks * self.block - self.positions[0], 0)
        else:
            blocks = np.unique(self.positions // self.block)
            starts = np.searchsorted(self.positions, blocks * self.block)
        return blocks, starts, np.append(starts[1:], len(self.positions))

    @cached_property
    def _all(self) -> IntArray:
        """All positions, made once: dealing and reading ahead hold them at the same time."""
        return self._slice(0, len(self.positions))

    def _slice(self, start: int, stop: int) -> IntArray:
        if isinstance(self.positions, range):
            return np.arange(start, stop) + self.positions[0]
        return self.positions[start:stop]

    @property
    def _blocks_at_once(self) -> int:
        return max(1, self.window_rows // self.block)

    def _window_blocks(self, epoch: int, number: int) -> IntArray:
        """The blocks of a window, as places among the blocks that take part, ascending."""
        order = self._generator(epoch, "blocks").permutation(len(self._blocks[0]))
        return np.sort(order[number * self._blocks_at_once : (number + 1) * self._blocks_at_once])

    def _batch_count(self, rows: int) -> int:
        return max(1, -(-rows // self.batch_size))

    def _deal(self, window: Window) -> Iterator[tuple[IntArray, tuple[int, ...]]]:
        """This process's places in the window and the number of rows of each process, a batch at a time."""
        pairs, singles = self._pairs(window)
        generator = self._generator(window.epoch, f"window {window.number}")
        order = generator.permutation(len(pairs))
        singles = generator.permutation(singles)
        count = self._batch_count(len(window.positions))
        pair_edges, single_edges = _edges(near_equal(len(pairs), count)), _edges(near_equal(len(singles), count))
        for batch in range(count):
            yield self._share(
                pairs[order[pair_edges[batch] : pair_edges[batch + 1]]],
                singles[single_edges[count - 1 - batch] : single_edges[count - batch]],
            )

    def _share(self, pairs: IntArray, singles: IntArray) -> tuple[IntArray, tuple[int, ...]]:
        """This process's part of a batch's pairs [P, 2] and single rows [R], and the number of rows of each process."""
        if self.world_size > 1:
            pair_counts, single_counts = share_sizes(len(pairs), len(singles), self.world_size)
            shares = tuple((2 * pair_counts + single_counts).tolist())
            pair_edges, single_edges = _edges(pair_counts), _edges(single_counts)
            pairs = pairs[pair_edges[self.rank] : pair_edges[self.rank + 1]]
            singles = singles[single_edges[self.rank] : single_edges[self.rank + 1]]
        else:
            shares = (2 * len(pairs) + len(singles),)
        return (np.concatenate([pairs.reshape(-1), singles]) if len(pairs) else singles), shares

    def _pairs(self, window: Window) -> tuple[IntArray, IntArray]:
        """Pairs [P, 2] and single rows [R] of a window, as places in it."""
        if self.plan.mix == "none":
            return np.empty((0, 2), dtype=np.int64), np.arange(len(window.positions))
        pairs, singles = whole_pairs(self.plan, window.positions, window.view, self.rows)
        return window.places(pairs), window.places(singles)

    def _generator(self, epoch: int, use: str) -> np.random.RandomState:
        word = key_word(self.seed, epoch, 0, f"batches {use}")
        return np.random.RandomState([word & 0xFFFFFFFF, word >> 32])


def _part(window: Window, places: list[IntArray]) -> Window:
    """The window of some places of another, ascending."""
    return replace(window, positions=window.positions[np.sort(np.concatenate(places))])


def _edges(sizes: IntArray) -> list[int]:
    """The starts of consecutive parts of these sizes, and the last one's stop."""
    return [0, *np.cumsum(sizes).tolist()]
