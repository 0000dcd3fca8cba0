"""The block loop: views drawn, the teacher asked, answers encoded and committed on a thread. All engines run it."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.errors import TeacherSuspectError
from kdcache.networks.checks import twice_chance
from kdcache.networks.extract_block import BlockAnswer, BlockExtractor
from kdcache.networks.loop_memory import IN_FLIGHT
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment
from kdcache.views.draw import Drawn, draw_requests

SUSPECT_ROWS = 512
RESUME = "the blocks that were committed stay; run the same command again to go on"


@dataclass
class BlockLoop:
    """What a loop over blocks notes: labelled views and how many the teacher got right, blocks that another writer
    holds, when the teacher was last asked, and seconds in which it idled. `base` is this process's peak memory before
    it, `peak_worker` the largest of a worker."""

    began: float = 0.0
    base: int | None = None
    labelled: int = 0
    correct: int = 0
    left: list[int] = field(default_factory=list)
    asked: float = 0.0
    waited_for_writer: float = 0.0
    waited_for_views: float = 0.0
    peak_worker: int | None = None
    notes: tuple[str, ...] = ()

    def note(self, block: int, commit: Commit | None) -> None:
        """A block was committed, or, with None, belongs to another writer for now."""
        if commit is None:
            self.left.append(block)
        else:
            self.labelled += commit.counts.labelled
            self.correct += commit.counts.correct

    def require_sane(self, classes: int, min_accuracy: float | None) -> None:
        """Stop a pass whose teacher is near chance on the views themselves; a lower `min_accuracy` lowers the limit."""
        limit = twice_chance(classes)
        limit = limit if min_accuracy is None else min(limit, min_accuracy)
        if self.labelled >= SUSPECT_ROWS and self.correct < limit * self.labelled:
            share = self.correct / self.labelled
            raise TeacherSuspectError(
                f"the teacher's top-1 accuracy over {self.labelled} views is {share:.3f}, below {limit:.3f}, though "
                "it passed on clean rows: the augmentation may destroy the images; draw a few and look at them"
            )


def extract_blocks(
    extractor: BlockExtractor,
    segment: Segment,
    job: Job,
    blocks: list[int],
    settings: ExtractSettings,
    loop: BlockLoop,
    *,
    progress: Progress = silent,
    stop: StopRequest | None = None,
    adopt: bool = False,
    drawn: Iterator[Drawn] | None = None,
    judge: bool = True,
) -> None:
    """Extract and commit blocks; what is noted on the way goes into `loop`. `drawn`: their views, if at hand. `judge`
    the teacher by what it answers; off where somebody else sees more of it."""
    if drawn is None:
        requests = (request for block in blocks for request in extractor.requests(block))
        drawn = draw_requests(job.dataset, requests, settings.workers)
    drawn = _watched(drawn, segment, blocks, loop, progress, stop)
    writing: list[tuple[int, Future[Commit | None]]] = []

    def write(answer: BlockAnswer) -> Commit | None:
        arrays, counts = extractor.encode(answer)
        return segment.commit(answer.block, arrays=arrays, counts=counts, provenance=job.provenance, adopt=adopt)

    def finish() -> None:
        block, future = writing.pop(0)
        loop.note(block, future.result())

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-writer") as writer:
        for block in blocks:
            writing.append((block, writer.submit(write, extractor.ask(block, drawn))))
            loop.asked = time.monotonic()
            while writing and writing[0][1].done():  # an error is told at once
                finish()
            if len(writing) > IN_FLIGHT:
                began = time.monotonic()
                finish()
                loop.waited_for_writer += time.monotonic() - began
            if judge:
                loop.require_sane(job.identity.teacher.classes, settings.min_accuracy)
        while writing:  # the teacher is done: nobody waits any more
            finish()
        if judge:
            loop.require_sane(job.identity.teacher.classes, settings.min_accuracy)


def _watched(
    drawn: Iterator[Drawn],
    segment: Segment,
    blocks: list[int],
    loop: BlockLoop,
    progress: Progress,
    stop: StopRequest | None,
) -> Iterator[Drawn]:
    """Count rows as they are drawn, and look for a request to stop."""
    layout = segment.layout
    total = sum(stop - start for start, stop in map(layout.block_rows, blocks)) * len(layout.views)
    done = 0
    progress("extracting", done, total)
    began = time.monotonic()
    for item in drawn:
        loop.waited_for_views += time.monotonic() - began
        if stop is not None:
            stop.check(RESUME)
        done += item.images.shape[0] * item.images.shape[1]
        progress("extracting", done, total)
        yield item  # last: nobody asks for more after the last item
        began = time.monotonic()
