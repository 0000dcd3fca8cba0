"""A block runner extracts blocks of a segment and measures itself: this process here, others in `dask_cluster`."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.errors import TeacherSuspectError
from kdcache.networks.checks import twice_chance
from kdcache.networks.extract_block import BlockAnswer, BlockExtractor
from kdcache.networks.loop_memory import IN_FLIGHT
from kdcache.pipelines.extract.earlier_contents import EarlierContents
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job, naming_samples
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment
from kdcache.views.draw import Drawn
from kdcache.views.workers import draw_requests

SUSPECT_ROWS = 512
RESUME = "the blocks that were committed stay; run the same command again to go on"


@dataclass
class LoopMeasures:
    """The measures of one loop over blocks.

    `start_time` and `answer_time` are monotonic seconds: the loop's start, and the teacher's latest answer. `labelled`
    counts views with a hard label, `correct` those that the teacher got right. `foreign_blocks` belong to another
    writer for now. `waited_for_writer` and `waited_for_views` are seconds in which the teacher idled; `seconds` are
    those of the whole loop. Memory is in bytes: `memory_bound` of this process, computed beforehand, its peak, and
    `memory_peak_worker`, the largest peak of a worker.
    """

    start_time: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    memory_bound: int | None = None
    memory_peak: int | None = None
    labelled: int = 0
    correct: int = 0
    foreign_blocks: list[int] = field(default_factory=list)
    answer_time: float = 0.0
    waited_for_writer: float = 0.0
    waited_for_views: float = 0.0
    memory_peak_worker: int | None = None
    notes: tuple[str, ...] = ()

    def add(self, block: int, commit: Commit | None) -> None:
        """Count the commit of a block; None: the block belongs to another writer for now."""
        if commit is None:
            self.foreign_blocks.append(block)
        else:
            self.labelled += commit.counts.labelled
            self.correct += commit.counts.correct

    def end(self) -> "LoopMeasures":
        """These measures, with the seconds and this process's peak memory up to now."""
        self.seconds, self.memory_peak = time.monotonic() - self.start_time, peak_rss_bytes()
        return self

    def require_accuracy(self, limit: float) -> None:
        """Raises TeacherSuspectError where the teacher's accuracy over at least 512 views is below `limit`."""
        if self.labelled >= SUSPECT_ROWS and self.correct < limit * self.labelled:
            accuracy = self.correct / self.labelled
            raise TeacherSuspectError(
                f"the teacher's top-1 accuracy over {self.labelled} views is {accuracy:.3f}, below {limit:.3f}, though "
                "it passed on clean rows: the augmentation may destroy the images; draw a few and look at them"
            )


class BlockRunner(Protocol):
    """A runner extracts blocks of one segment, as often as it is called, and measures all of it."""

    measures: LoopMeasures

    def run(self, blocks: list[int], *, adopt: bool = False) -> None:
        """Extract and commit blocks. A block of another writer is left alone, or with `adopt` finished for it.

        Raises TeacherSuspectError, BadLogitsError, and InterruptedRunError once a stop is requested.
        """
        ...

    def finish(self) -> LoopMeasures:
        """The measures of all blocks. Raises BlocksFailedError, naming blocks and samples, where blocks failed."""
        ...


class Engine(Protocol):
    """The place where blocks are extracted: this process, or a Dask cluster."""

    def require_fit(self, job: Job) -> None:
        """Make ready for a job before anything is written. Raises ClusterError where a worker cannot do it."""
        ...

    def runner(self, job: Job, segment: Segment, fresh: FreshDraws | None = None) -> BlockRunner:
        """The runner of a segment's blocks. Raises ClusterError where a worker does not see the segment's store."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """This process, which has built the job itself and fits it."""

    settings: ExtractSettings
    progress: Progress
    stop: StopRequest

    def require_fit(self, job: Job) -> None:
        pass

    def runner(self, job: Job, segment: Segment, fresh: FreshDraws | None = None) -> BlockRunner:
        limit = least_accuracy(job, self.settings)
        settings = self.settings
        return LocalRunner(
            job, segment, settings.workers, limit, self.progress, self.stop, settings.worker_start, fresh
        )


@dataclass
class LocalRunner:
    """Draws the blocks' views in `workers` processes, asks the teacher in this one, and encodes and commits its answers
    on a thread. Stops where the teacher's accuracy over the views is below `least_accuracy`; 0.0: never. `fresh` draws
    some samples of each block again before it is committed."""

    job: Job
    segment: Segment
    workers: int
    least_accuracy: float = 0.0
    progress: Progress = silent
    stop: StopRequest | None = None
    worker_start: WorkerStart = DEFAULT_START
    fresh: FreshDraws | None = None

    def __post_init__(self) -> None:
        self.measures = LoopMeasures(memory_bound=peak_rss_bytes() + self.extractor.memory.total)

    @cached_property
    def extractor(self) -> BlockExtractor:
        return self.job.extractor(self.segment.layout)

    @cached_property
    def _earlier(self) -> EarlierContents:
        return EarlierContents(self.segment, self.job.dataset)

    def run(self, blocks: list[int], *, adopt: bool = False) -> None:
        requests = (request for block in blocks for request in self.extractor.requests(block))
        drawing = draw_requests(self.job.dataset, requests, self.workers, self.worker_start)
        with naming_samples(self.job.data), closing(drawing) as drawn_views:
            self.run_drawn(blocks, drawn_views, adopt=adopt)

    def finish(self) -> LoopMeasures:
        self.measures.memory_peak_worker = peak_rss_bytes(children=True) if self.workers else None
        return self.measures.end()

    def run_drawn(self, blocks: list[int], drawn_views: Iterator[Drawn], *, adopt: bool = False) -> None:
        """Do as `run` does with the blocks' views, in the order of their requests, drawn by the caller."""
        drawn_views = self._with_progress(blocks, drawn_views)
        writes: list[tuple[int, Future[Commit | None]]] = []

        def finish_write() -> None:
            block, future = writes.pop(0)
            self.measures.add(block, future.result())

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-writer") as writer:
            for block in blocks:
                if self.fresh is not None:
                    self.fresh.ask_block(self.segment.layout, block)
                writes.append((block, writer.submit(self._write, self.extractor.ask(block, drawn_views), adopt)))
                self.measures.answer_time = time.monotonic()
                while writes and writes[0][1].done():  # raises at once what went wrong in writing
                    finish_write()
                if len(writes) > IN_FLIGHT:
                    wait_start = time.monotonic()
                    finish_write()
                    self.measures.waited_for_writer += time.monotonic() - wait_start
                self.measures.require_accuracy(self.least_accuracy)
            while writes:  # the teacher is done, so this is no idle time
                finish_write()
            self.measures.require_accuracy(self.least_accuracy)
        self.job.teacher.require_same_weights()

    def _write(self, answer: BlockAnswer, adopt: bool) -> Commit | None:
        arrays, counts = self.extractor.encode(answer)
        if self.fresh is not None:
            self.fresh.require_block(self.segment.layout, answer.block, answer.pixels, answer.contents, answer.struck)
        if "contents" in arrays:
            self._earlier.require_same(answer.block, answer.contents)
        return self.segment.commit(
            answer.block,
            arrays=arrays,
            counts=counts,
            provenance=self.job.provenance,
            adopt=adopt,
            struck=answer.struck,
        )

    def _with_progress(self, blocks: list[int], drawn_views: Iterator[Drawn]) -> Iterator[Drawn]:
        """The same views, batch by batch; rows are counted, idle seconds noted, and a request to stop is looked for."""
        total_rows, row_count = rows_of(self.segment, blocks), 0
        self.progress("extracting", row_count, total_rows)
        wait_start = time.monotonic()
        for batch in drawn_views:
            self.measures.waited_for_views += time.monotonic() - wait_start
            if self.stop is not None:
                self.stop.check(RESUME)
            row_count += batch.images.shape[0] * batch.images.shape[1]
            self.progress("extracting", row_count, total_rows)
            yield batch  # after its progress: the caller asks for no more after the last batch
            wait_start = time.monotonic()


def rows_of(segment: Segment, blocks: Iterable[int]) -> int:
    """The number of rows, (position, view) pairs, in some blocks."""
    return sum(stop - start for start, stop in map(segment.layout.block_rows, blocks)) * len(segment.views)


def least_accuracy(job: Job, settings: ExtractSettings) -> float:
    """The accuracy over views below which a teacher is suspect: twice chance, or less where the settings say so."""
    limit = twice_chance(job.identity.teacher.classes)
    return limit if settings.min_accuracy is None else min(limit, settings.min_accuracy)
