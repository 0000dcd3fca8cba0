"""The report of one block that was extracted, and the progress of a run of blocks in rows."""

from collections.abc import Iterable
from dataclasses import dataclass

from kdcache.base.progress import Progress
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment

THIS_PROCESS = "this process"
RESUME = "the blocks that were committed stay; run the same command again to go on"


@dataclass(frozen=True)
class BlockReport:
    """The report of one block: its commit, or None where another writer holds the block; never logits. `worker` that
    extracted it, "" for this process. `batch_rows`: the rows of its batches by now. The seconds are those of this
    block. `peak`: the worker's peak memory so far, in bytes."""

    worker: str
    commit: Commit | None
    batch_rows: int
    waited_for_writer: float = 0.0
    waited_for_views: float = 0.0
    peak: int | None = None


class RowProgress:
    """The progress of a run of blocks, in rows: those that were drawn, or those of blocks that ended, if more."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._total, self._shown, self._drawn, self._ended = progress, 0, 0, 0, 0

    def begin(self, total: int) -> None:
        """Begin a run of `total` rows."""
        self._total, self._shown, self._drawn, self._ended = total, 0, 0, 0
        self._progress("extracting", 0, total)

    def add_drawn(self, rows: int) -> None:
        self._drawn += rows
        self._show(self._drawn)

    def add_ended(self, rows: int) -> None:
        self._ended += rows
        self._show(self._ended)

    def _show(self, rows: int) -> None:
        if (rows := min(rows, self._total)) > self._shown:  # some are drawn again where batches were halved
            self._shown = rows
            self._progress("extracting", rows, self._total)


def rows_of(segment: Segment, blocks: Iterable[int]) -> int:
    """The number of rows, (position, view) pairs, in some blocks."""
    return sum(stop - start for start, stop in map(segment.layout.block_rows, blocks)) * len(segment.views)
