"""Which rows make up which batch: pure functions of (seed, epoch), so that a run's order is a few integers.

An epoch is cut into windows of whole blocks whose soft labels fit in memory together; one window is the rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdcache.plan import IntArray, ViewPlan, key_word, whole_pairs


@dataclass(frozen=True)
class Window:
    """Positions whose soft labels are in memory at the same time, in ascending runs of blocks."""

    epoch: int
    view: int
    number: int
    positions: IntArray


@dataclass(frozen=True)
class BatchRows:
    """Positions [B] of one batch."""

    epoch: int
    view: int
    step: int
    window: int
    positions: IntArray


@dataclass(frozen=True)
class Deal:
    """How rows are dealt: `positions` take part, in blocks of `block` rows, at most `window_rows` in memory at once."""

    positions: IntArray
    rows: int
    plan: ViewPlan
    views: tuple[int, ...]
    batch_size: int
    seed: int
    block: int
    window_rows: int

    def view_of(self, epoch: int) -> int:
        """Epoch e uses view e mod V."""
        return self.views[epoch % len(self.views)]

    def windows(self, epoch: int) -> list[Window]:
        """The epoch's windows: all positions, or blocks in random order, as many at once as fit."""
        view = self.view_of(epoch)
        if len(self.positions) <= self.window_rows:
            return [Window(epoch, view, 0, self.positions)]
        blocks = np.unique(self.positions // self.block)
        shuffled = self._generator(epoch, "blocks").permutation(blocks)
        at_once = max(1, self.window_rows // self.block)
        chunks = [np.sort(shuffled[start : start + at_once]) for start in range(0, len(shuffled), at_once)]
        return [
            Window(epoch, view, number, self.positions[np.isin(self.positions // self.block, chunk)])
            for number, chunk in enumerate(chunks)
        ]

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return sum(self._batches_of(len(window.positions)) for window in self.windows(epoch))

    def batches(self, epoch: int) -> Iterator[BatchRows]:
        """The epoch's batches, equal in size up to a pair; mixing partners stay together where both take part."""
        step = 0
        for window in self.windows(epoch):
            for positions in self._deal(window):
                yield BatchRows(epoch, window.view, step, window.number, positions)
                step += 1

    def _batches_of(self, rows: int) -> int:
        return max(1, -(-rows // self.batch_size))

    def _deal(self, window: Window) -> list[IntArray]:
        pairs, singles = whole_pairs(self.plan, window.positions, window.view, self.rows)
        generator = self._generator(window.epoch, f"window {window.number}")
        order = generator.permutation(len(pairs))
        alone = generator.permutation(singles)
        count = self._batches_of(len(window.positions))
        return [
            np.concatenate([paired.reshape(-1), rest])
            for paired, rest in zip(
                np.array_split(pairs[order], count), reversed(np.array_split(alone, count)), strict=True
            )
        ]

    def _generator(self, epoch: int, use: str) -> np.random.RandomState:
        word = key_word(self.seed, epoch, 0, f"batches {use}")
        return np.random.RandomState([word & 0xFFFFFFFF, word >> 32])
