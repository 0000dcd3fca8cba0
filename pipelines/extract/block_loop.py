"""The block loop draws views, asks the teacher, and encodes and commits its answers on a thread. All engines run it."""

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
    """The notes of one loop over blocks.

    `start_time` and `answer_time` are monotonic seconds: the loop's start, and the teacher's latest answer. `labelled`
    counts views with a hard label, `correct` those that the teacher got right. `foreign_blocks` belong to another
    writer for now. `waited_for_writer` and `waited_for_views` are seconds in which the teacher idled. Memory is in
    bytes: `base_memory` is this process's peak before the loop, `peak_worker` the largest peak of a worker.
    """

    start_time: float = 0.0
    base_memory: int | None = None
    labelled: int = 0
    correct: int = 0
    foreign_blocks: list[int] = field(default_factory=list)
    answer_time: float = 0.0
    waited_for_writer: float = 0.0
    waited_for_views: float = 0.0
    peak_worker: int | None = None
    notes: tuple[str, ...] = ()

    def note(self, block: int, commit: Commit | None) -> None:
        """Note the commit of a block; None: the block belongs to another writer for now."""
        if commit is None:
            self.foreign_blocks.append(block)
        else:
            self.labelled += commit.counts.labelled
            self.correct += commit.counts.correct

    def require_sane(self, classes: int, min_accuracy: float | None) -> None:
        """Raises TeacherSuspectError where the teacher is near chance on the views; `min_accuracy` lowers the limit."""
        limit = twice_chance(classes)
        limit = limit if min_accuracy is None else min(limit, min_accuracy)
        if self.labelled >= SUSPECT_ROWS and self.correct < limit * self.labelled:
            accuracy = self.correct / self.labelled
            raise TeacherSuspectError(
                f"the teacher's top-1 accuracy over {self.labelled} views is {accuracy:.3f}, below {limit:.3f}, though "
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
    drawn_views: Iterator[Drawn] | None = None,
    judge: bool = True,
) -> None:
    """Extract and commit blocks, and note them in `loop`. `drawn_views`: the blocks' views, where the caller drew them
    already. `judge`: stop where the teacher is near chance; off for a caller that judges over more blocks than these.
    """
    if drawn_views is None:
        requests = (request for block in blocks for request in extractor.requests(block))
        drawn_views = draw_requests(job.dataset, requests, settings.workers)
    drawn_views = _with_progress(drawn_views, segment, blocks, loop, progress, stop)
    writes: list[tuple[int, Future[Commit | None]]] = []

    def write(answer: BlockAnswer) -> Commit | None:
        arrays, counts = extractor.encode(answer)
        return segment.commit(answer.block, arrays=arrays, counts=counts, provenance=job.provenance, adopt=adopt)

    def finish_write() -> None:
        block, future = writes.pop(0)
        loop.note(block, future.result())

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-writer") as writer:
        for block in blocks:
            writes.append((block, writer.submit(write, extractor.ask(block, drawn_views))))
            loop.answer_time = time.monotonic()
            while writes and writes[0][1].done():  # raises at once what went wrong in writing
                finish_write()
            if len(writes) > IN_FLIGHT:
                wait_start = time.monotonic()
                finish_write()
                loop.waited_for_writer += time.monotonic() - wait_start
            if judge:
                loop.require_sane(job.identity.teacher.classes, settings.min_accuracy)
        while writes:  # the teacher is done, so this is no idle time
            finish_write()
        if judge:
            loop.require_sane(job.identity.teacher.classes, settings.min_accuracy)


def _with_progress(
    drawn_views: Iterator[Drawn],
    segment: Segment,
    blocks: list[int],
    loop: BlockLoop,
    progress: Progress,
    stop: StopRequest | None,
) -> Iterator[Drawn]:
    """The same views, batch by batch; rows are counted, idle seconds noted, and a request to stop is looked for."""
    layout = segment.layout
    total_rows = sum(stop - start for start, stop in map(layout.block_rows, blocks)) * len(layout.views)
    row_count = 0
    progress("extracting", row_count, total_rows)
    wait_start = time.monotonic()
    for batch in drawn_views:
        loop.waited_for_views += time.monotonic() - wait_start
        if stop is not None:
            stop.check(RESUME)
        row_count += batch.images.shape[0] * batch.images.shape[1]
        progress("extracting", row_count, total_rows)
        yield batch  # after its progress: the caller asks for no more after the last batch
        wait_start = time.monotonic()
