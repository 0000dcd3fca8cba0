"""The order of batches: a pure function of (seed, epoch), so that a run's order is a few integers.

An epoch is cut into windows of whole blocks whose soft labels fit in memory together; one window is the rule. Several
processes share each batch, and its rows do not depend on their number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.ranges import require_seed
from kdcache.errors import InvalidInputError
from kdcache.store.plan import ViewPlan, key_word, whole_pairs
from kdcache.training.batch_shares import exact_parts, near_equal, share_sizes


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
    """The batches of every epoch, from a seed. Raises InvalidInputError for one that is out of range.

    positions: those that take part, ascending; a range stands for all of its positions and takes no memory.
    rows: the number of positions of the store. cycle: the views that epochs use in turn.
    batch_size: rows of a batch, over all processes. This process is number `rank` of `world_size`.
    block: rows of a block. window_rows: the most rows whose soft labels are in memory at once.
    epochs: the number of epochs that have equal steps: as many as the one that needs most, where windows of other rows
    need fewer. None gives each epoch the steps that its own windows need.
    drop_last: every batch has exactly `batch_size` rows. The rest of each window is left out, and what an epoch has
    more than the one with the fewest steps. A mixing pair is split where it must be. Processes get near-equal parts,
    all of the same size where `world_size` divides `batch_size`.
    sizes: the rows of each batch of an epoch, which may be 0, in place of `batch_size`; all rows together. There must
    be one window and one process.
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
    epochs: int | None = None
    drop_last: bool = False
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_seed(self.seed)

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

    def require_batches(self) -> None:
        """Raises InvalidInputError where batches of an exact size leave an epoch without any."""
        if self.drop_last and not self.steps(0):
            raise InvalidInputError(
                f"batches of exactly {self.batch_size} rows were asked for; a window of soft labels has fewer of the "
                f"{len(self.positions)} rows: choose a smaller batch size, more memory or drop_last=False"
            )

    def steps(self, epoch: int) -> int:
        """The number of batches of an epoch."""
        return sum(self._needed_steps(epoch)) if self.epochs is None else self._equal_steps

    def window_steps(self, epoch: int) -> list[int]:
        """The number of batches of each of the epoch's windows."""
        counts, rows = self._needed_steps(epoch), self._window_sizes(epoch)
        surplus = self.steps(epoch) - sum(counts)
        for _ in range(surplus):  # the largest batches are made smaller
            counts[max(range(len(rows)), key=lambda number: rows[number] / counts[number])] += 1
        while surplus < 0:  # the last batches are left out
            last = max(number for number, count in enumerate(counts) if count)
            counts[last] -= 1
            surplus += 1
        return counts

    @cached_property
    def has_unequal_needs(self) -> bool:
        """True where the windows of some epochs need more steps than those of others."""
        return self.window_count > 1 and len({sum(self._needed_steps(epoch)) for epoch in range(self.epochs or 0)}) > 1

    def own_window(self, epoch: int, number: int) -> Window:
        """The part of one of the epoch's windows that this process's batches hold."""
        window = self.window(epoch, number)
        if self.world_size == 1:
            return window
        return _part(window, [places for places, _ in self._deal(window, self.window_steps(epoch)[number])])

    def batches_from(self, epoch: int, step: int, stop: int) -> Iterator[BatchRows]:
        """The batches from a step of an epoch up to epoch `stop`, a window at a time: an epoch's batches are never all
        in memory."""
        for later_epoch in range(epoch, stop):
            for batch in self.batches(later_epoch):
                if later_epoch > epoch or batch.step >= step:
                    yield batch

    def batches(self, epoch: int) -> Iterator[BatchRows]:
        """The epoch's batches. Within a window they are equal in size up to a pair, and mixing partners stay together
        where both take part; see `drop_last` for the other rule.

        Each is this process's share of the batch, which may be empty: see `share_sizes`.
        """
        step = 0
        for number, count in enumerate(self.window_steps(epoch)):
            if not count:
                continue
            window = own_window = self.window(epoch, number)
            deals: Iterable[tuple[IntArray, tuple[int, ...]]] = self._deal(window, count)
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

    @cached_property
    def _equal_steps(self) -> int:
        epochs = range(1 if self.window_count == 1 else max(self.epochs or 1, 1))
        needs = [sum(self._needed_steps(epoch)) for epoch in epochs]
        return min(needs) if self.drop_last else max(needs)

    def _needed_steps(self, epoch: int) -> list[int]:
        """The number of batches that each window needs by its rows alone."""
        if self.sizes:
            return [len(self.sizes)]
        if self.drop_last:
            return [rows // self.batch_size for rows in self._window_sizes(epoch)]
        return [max(1, -(-rows // self.batch_size)) for rows in self._window_sizes(epoch)]

    def _window_sizes(self, epoch: int) -> list[int]:
        """The number of rows of each of the epoch's windows."""
        if self.window_count == 1:
            return [len(self.positions)]
        _, starts, stops = self._blocks
        firsts = np.arange(0, len(starts), self._blocks_at_once)
        sizes: list[int] = np.add.reduceat((stops - starts)[self._block_order(epoch)], firsts).tolist()
        return sizes

    def _block_order(self, epoch: int) -> IntArray:
        """The blocks that take part in random order, as places among them."""
        return self._generator(epoch, "blocks").permutation(len(self._blocks[0]))

    def _window_blocks(self, epoch: int, number: int) -> IntArray:
        """The blocks of a window, as places among the blocks that take part, ascending."""
        first = number * self._blocks_at_once
        return np.sort(self._block_order(epoch)[first : first + self._blocks_at_once])

    def _deal(self, window: Window, count: int) -> Iterator[tuple[IntArray, tuple[int, ...]]]:
        """This process's places in each of the window's `count` batches, and the number of rows of each process."""
        pairs, singles = self._pairs(window)
        generator = self._generator(window.epoch, f"window {window.number}")
        pairs = pairs[generator.permutation(len(pairs))]
        singles = generator.permutation(singles)
        if self.drop_last or self.sizes:
            parts = exact_parts(pairs, singles, self.sizes or [self.batch_size] * count)
        else:
            needed_count = max(1, -(-len(window.positions) // self.batch_size))
            if (missing := count - len(pairs) - len(singles)) > 0 and count > needed_count:  # no batch may be empty
                pairs, singles = pairs[:-missing], np.concatenate([singles, pairs[-missing:].reshape(-1)])
            parts = _near_equal_parts(pairs, singles, count)
        for part in parts:
            yield self._share(*part)

    def _share(self, pairs: IntArray, singles: IntArray) -> tuple[IntArray, tuple[int, ...]]:
        """This process's part of a batch's pairs [P, 2] and single rows [R], and the number of rows of each process."""
        shares: tuple[int, ...] = (2 * len(pairs) + len(singles),)
        if self.world_size > 1 and self.drop_last:
            shares = tuple(near_equal(self.batch_size, self.world_size).tolist())
            pairs, singles = list(exact_parts(pairs, singles, shares))[self.rank]
        elif self.world_size > 1:
            pair_counts, single_counts = share_sizes(len(pairs), len(singles), self.world_size)
            shares = tuple((2 * pair_counts + single_counts).tolist())
            pair_edges, single_edges = _edges(pair_counts), _edges(single_counts)
            pairs = pairs[pair_edges[self.rank] : pair_edges[self.rank + 1]]
            singles = singles[single_edges[self.rank] : single_edges[self.rank + 1]]
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


def _near_equal_parts(pairs: IntArray, singles: IntArray, count: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Near-equal parts of pairs [P, 2] and of single rows [R]; those with a pair more have a single row less."""
    pair_edges, single_edges = _edges(near_equal(len(pairs), count)), _edges(near_equal(len(singles), count))
    for number in range(count):
        yield (
            pairs[pair_edges[number] : pair_edges[number + 1]],
            singles[single_edges[count - 1 - number] : single_edges[count - number]],
        )


def _part(window: Window, places: list[IntArray]) -> Window:
    """The window of some places of another, ascending."""
    return replace(window, positions=window.positions[np.sort(np.concatenate(places))])


def _edges(sizes: IntArray) -> list[int]:
    """The starts of consecutive parts of these sizes, and the last one's stop."""
    return [0, *np.cumsum(sizes).tolist()]
