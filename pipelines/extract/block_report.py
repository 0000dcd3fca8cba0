"""The report of one block that was extracted, and the progress of a run of blocks in rows."""

from collections.abc import Iterable
from dataclasses import dataclass

from kdcache.base.progress import Activity, Progress
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
    """The progress of a run of blocks, in rows: those of blocks that are committed, and those that are under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._total, self._drawn, self._ended = progress, 0, 0, 0

    def begin(self, total: int) -> None:
        """Begin a run of `total` rows."""
        self._total, self._drawn, self._ended = total, 0, 0
        self._show()

    def add_drawn(self, rows: int) -> None:
        self._drawn += rows
        self._show()

    def add_ended(self, rows: int) -> None:
        self._ended += rows
        self._show()

    def _show(self) -> None:
        if not self._total:
            return
        drawn = min(self._drawn, self._total)  # some are drawn again where batches were halved
        under_way = max(drawn - self._ended, 0)
        self._progress(Activity("extracting", "rows", under_way=under_way), self._ended, self._total)


def rows_of(segment: Segment, blocks: Iterable[int]) -> int:
    """The number of rows, (position, view) pairs, in some blocks."""
    return sum(stop - start for start, stop in map(segment.layout.block_rows, blocks)) * len(segment.views)


def extracting_text(segment: Segment, blocks: list[int]) -> str:
    """The words that begin an extraction of some blocks: `extracting 2,048 rows of views 0:4`."""
    layout = segment.layout
    done_count = layout.blocks - len(blocks)
    done = f", {done_count:,} of {layout.blocks:,} blocks are done" if done_count else ""
    return f"extracting {rows_of(segment, blocks):,} rows of views {segment.views}{done}"
