"""The block loop of this process without a stage around it, over views that it draws or that were drawn before."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from kdcache.pipelines.extract.block_runner import BlockRunner
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.local_blocks import LocalBlocks
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.segment import Segment
from kdcache.views.view_stack import Drawn


class DrawnBlocks(LocalBlocks):
    """Blocks whose views were drawn already, in the order of their requests."""

    drawn: Iterable[Drawn]

    def draw(self, blocks: Sequence[int]) -> Generator[Drawn]:
        yield from self.drawn


def local_runner(
    job: Job, segment: Segment, settings: ExtractSettings, *, drawn: Iterable[Drawn] | None = None, **how: Any
) -> BlockRunner:
    """The runner of a segment's blocks in this process; `how` goes to it."""
    if drawn is None:
        work = LocalBlocks(settings)
    else:
        work = DrawnBlocks(settings)
        work.drawn = drawn
    work.begin(job, segment)
    return BlockRunner(work, job, segment, **how)
