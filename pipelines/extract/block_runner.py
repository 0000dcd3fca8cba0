"""The block runner extracts blocks of a segment on an engine, and measures them: it is the loop of every extraction."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from kdcache.base.engine import Engine, idle
from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.errors import BlocksFailedError, ClusterError, StoreError, TeacherSuspectError
from kdcache.networks.loop_memory import IN_FLIGHT
from kdcache.networks.teacher_check import twice_chance
from kdcache.pipelines.extract.block_report import RESUME, THIS_PROCESS, BlockReport, RowProgress, rows_of
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.smaller_batches import halved_note
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment

SUSPECT_ROWS = 512
FAILURES_AT_FIRST = 8  # once so many blocks failed and none was committed, the other blocks are not tried
NAMED_SAMPLES = 64  # of a failed block, at most
VISIBLE_SECONDS = 60.0  # that a network file system has to show a worker's commit to this process


@dataclass
class LoopMeasures:
    """The measures of one loop over blocks.

    `start_time` is the loop's start in monotonic seconds. `labelled` counts views with a hard label, `correct` those
    that the teacher got right. `foreign_blocks` belong to another writer for now. `waited_for_writer` and
    `waited_for_views` are seconds in which the teacher idled; `seconds` are those of the whole loop. Memory is in
    bytes: `memory_bound` of this process, computed beforehand, its peak, and `memory_peak_worker`, the largest peak of
    a worker.
    """

    start_time: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    memory_bound: int | None = None
    memory_peak: int | None = None
    labelled: int = 0
    correct: int = 0
    foreign_blocks: list[int] = field(default_factory=list)
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


class BlockWork(Protocol):
    """The work on blocks, where its engine runs it: in this process, or on workers that build the job themselves."""

    @property
    def engine(self) -> Engine: ...
    @property
    def memory_bound(self) -> int | None: ...  # of this process, in bytes; None where the work is done elsewhere
    @property
    def memory_peak(self) -> int | None: ...  # of its processes, in bytes; None for workers, which report theirs

    def require_fit(self, job: Job) -> None:
        """Make ready for a job before anything is written. Raises ClusterError where a worker cannot do it."""
        ...

    def begin(self, job: Job, segment: Segment, fresh: FreshDraws | None) -> None:
        """Make ready for a segment's blocks. Raises ClusterError where a worker does not see the segment's store."""
        ...

    def extracting(
        self, blocks: list[int], *, adopt: bool, rows: RowProgress
    ) -> AbstractContextManager[Callable[[int], BlockReport | Future[BlockReport]]]:
        """The function that the engine runs on these blocks. A block of another writer is left alone, or with `adopt`
        finished for it."""
        ...


class BlockRunner:
    """The runner extracts blocks of one segment, as often as it is called, and measures all of it. It stops where the
    teacher's accuracy over the views is below `least_accuracy`; 0.0: never."""

    def __init__(
        self,
        work: BlockWork,
        job: Job,
        segment: Segment,
        *,
        least_accuracy: float = 0.0,
        progress: Progress = silent,
        stop: StopRequest | None = None,
    ) -> None:
        self._work, self._job, self._segment = work, job, segment
        self._least_accuracy, self._progress, self._stop = least_accuracy, progress, stop or StopRequest()
        self._errors: dict[int, Exception] = {}
        self._halved: dict[str, str] = {}
        self.measures = LoopMeasures(memory_bound=work.memory_bound)

    def run(self, blocks: list[int], *, adopt: bool = False) -> None:
        """Extract and commit blocks. A block of another writer is left alone, or with `adopt` finished for it. A block
        that fails on every worker is noted, and the others go on.

        Raises TeacherSuspectError, BadLogitsError, and InterruptedRunError once a stop is requested.
        """
        rows, commit_count = RowProgress(self._progress), 0
        with ExitStack() as stack:
            function = stack.enter_context(self._work.extracting(blocks, adopt=adopt, rows=rows))
            outcomes = self._work.engine.each(function, blocks, ahead=IN_FLIGHT, poll=lambda: self._stop.check(RESUME))
            stack.callback(getattr(outcomes, "close", idle))  # what is under way is called off before the work ends
            for block, outcome in outcomes:
                if isinstance(outcome, Exception):
                    self._fail(block, outcome, commit_count)
                    continue
                if outcome.commit is not None and outcome.worker:
                    self._require_visible(outcome.commit, outcome.worker)
                commit_count += outcome.commit is not None
                self._measure(block, outcome)
                rows.add_ended(rows_of(self._segment, [block]))

    def finish(self) -> LoopMeasures:
        """The measures of all blocks. Raises BlocksFailedError, naming blocks and samples, where blocks failed."""
        if not self._errors:
            self.measures.memory_peak_worker = self.measures.memory_peak_worker or self._work.memory_peak
            return self.measures.end()
        lines = [self._failure_line(block, error) for block, error in sorted(self._errors.items())]
        problem = (
            f"{len(lines)} of {self._segment.layout.blocks} blocks failed again and again; the others were tried, and "
            "what was committed stays. Nothing was sealed:"
        )
        advice = "mend that, and run the same command again: it does the rest"
        raise BlocksFailedError("\n".join([problem, *lines, advice]))

    def _measure(self, block: int, report: BlockReport) -> None:
        measures, batch_rows = self.measures, self._job.batch_rows
        measures.add(block, report.commit)
        measures.require_accuracy(self._least_accuracy)
        measures.waited_for_writer += report.waited_for_writer
        measures.waited_for_views += report.waited_for_views
        measures.memory_peak_worker = max(measures.memory_peak_worker or 0, report.peak or 0) or None
        if report.batch_rows != batch_rows:
            place = f"worker {report.worker}" if report.worker else THIS_PROCESS
            self._halved[place] = halved_note(place, report.batch_rows, batch_rows)
            measures.notes = tuple(self._halved.values())

    def _fail(self, block: int, error: Exception, commit_count: int) -> None:
        if isinstance(error, StoreError):  # a full disk fails for every block
            raise error
        self._errors[block] = error
        if len(self._errors) >= FAILURES_AT_FIRST and not commit_count:
            blocks = ", ".join(map(str, self._errors))
            problem = f"the first {len(self._errors)} blocks failed again and again ({blocks}), and none was committed"
            advice = "the others were not tried; mend that, and run the same command again"
            raise BlocksFailedError(f"{problem}: {type(error).__name__}: {error}; {advice}") from error

    def _failure_line(self, block: int, error: Exception) -> str:
        start, stop = self._segment.layout.block_rows(block)
        names = [self._job.sample_name(position) for position in range(start, min(stop, start + NAMED_SAMPLES))]
        rest = f" and {stop - start - NAMED_SAMPLES} more" if stop - start > NAMED_SAMPLES else ""
        problem = f"  block {block} (positions {start} to {stop - 1}): {type(error).__name__}: {error}"
        return f"{problem}; it holds {', '.join(names)}{rest}"

    def _require_visible(self, commit: Commit, worker: str) -> None:
        """Wait until this process sees a worker's commit, since network file systems are slow. Raises ClusterError."""
        root, deadline = self._segment.folder.root, time.monotonic() + VISIBLE_SECONDS
        while self._segment.find_commit(commit.block) != commit:
            if time.monotonic() > deadline:
                problem = f"worker {worker} committed block {commit.block}, and {root} does not have it here"
                raise ClusterError(f"{problem}; put the store into a folder that all machines share, at one path")
            time.sleep(0.5)


def least_accuracy(job: Job, settings: ExtractSettings) -> float:
    """The accuracy over views below which a teacher is suspect: twice chance, or less where the settings say so."""
    limit = twice_chance(job.identity.teacher.label_classes)
    return limit if settings.min_accuracy is None else min(limit, settings.min_accuracy)
