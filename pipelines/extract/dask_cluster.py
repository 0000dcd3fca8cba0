"""The engine of an extraction: this process, or a Dask cluster, whose workers build the job and are dealt blocks."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from kdcache.base.cluster import Cluster, open_cluster
from kdcache.base.engine_settings import wants_dask
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import BlocksFailedError, ClusterError, StoreError
from kdcache.pipelines.extract.block_runner import (
    RESUME,
    BlockRunner,
    Engine,
    LocalEngine,
    LoopMeasures,
    least_accuracy,
    rows_of,
)
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit, read_commit
from kdcache.store.segment import Segment

if TYPE_CHECKING:
    from kdcache.pipelines.extract.dask_worker import BlockReport

FAILURES_AT_FIRST = 8  # once so many blocks failed and none was committed, the other blocks are not tried
NAMED_SAMPLES = 64  # of a failed block, at most
VISIBLE_SECONDS = 60.0  # that a network file system has to show a worker's commit to this process
PRELOAD = ("kdcache.pipelines.extract.dask_worker", "kdcache.pipelines.extract.stage")


@contextmanager
def open_engine(settings: ExtractSettings, progress: Progress, stop: StopRequest) -> Iterator[Engine]:
    """Open the engine that the settings ask for: a cluster, or this process alone. Afterwards the workers of a cluster
    that goes on forget the job. Raises InvalidInputError, ClusterError."""
    if not wants_dask(settings):
        yield LocalEngine(settings, progress, stop)
        return
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                open_cluster(
                    scheduler=settings.scheduler,
                    workers=settings.dask_workers,
                    gpus=() if settings.device.startswith("cpu") else visible_gpus(),
                    dashboard=settings.dashboard,
                    preload=PRELOAD,
                )
            )
        except ClusterError:
            stop.check(RESUME)  # Ctrl-C reaches processes that are being started, too
            raise
        worker_count = len(cluster.everywhere(os.getpid))
        progress(f"dask workers, dashboard {cluster.dashboard_text}", worker_count, worker_count)
        yield DaskEngine(cluster, settings, progress, stop, stack)


def visible_gpus() -> tuple[str, ...]:
    """This machine's GPUs as values of CUDA_VISIBLE_DEVICES."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(names or map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else ()


@dataclass(frozen=True)
class DaskEngine:
    """The workers of a cluster. Each builds the job once, under the extraction's own `name`; where the cluster goes on,
    it forgets the job when `stack` closes."""

    cluster: Cluster
    settings: ExtractSettings
    progress: Progress
    stop: StopRequest
    stack: ExitStack
    name: str = field(default_factory=lambda: f"kdcache-extract-{uuid.uuid4().hex}")

    def require_fit(self, job: Job) -> None:
        """Build the job on each worker. Raises ClusterError, naming one that cannot, or that builds another."""
        from kdcache.pipelines.extract.dask_worker import WorkerJob, open_worker_job

        paths = {"store": self.settings.store, "class_map": os.path.expanduser(self.settings.class_map)}
        by_name = {name: os.path.abspath(path) for name, path in paths.items() if path}
        settings = self.settings.model_copy(update=by_name)
        try:
            self.cluster.client.register_plugin(WorkerJob(settings, job.identity), name=self.name)
        except Exception as error:
            advice = "install kdcache with all that it needs on every worker"
            raise ClusterError(
                f"a worker cannot take the job on ({type(error).__name__}: {error}); {advice}"
            ) from error
        self.stack.callback(self._forget)
        _require_none_failed(self.cluster.everywhere(open_worker_job, self.name))

    def runner(self, job: Job, segment: Segment, fresh: FreshDraws | None = None) -> BlockRunner:
        """The runner of a segment's blocks. Raises ClusterError, naming a worker that does not see its store.
        The workers have fresh processes of their own, so this one's ends."""
        from kdcache.pipelines.extract.dask_worker import see_store

        if fresh is not None:
            fresh.close()

        _require_none_failed(self.cluster.everywhere(see_store, self.name))
        return DaskRunner(self, job, segment)

    def _forget(self) -> None:
        if self.settings.scheduler and self.cluster.client.status == "running":
            self.cluster.client.unregister_worker_plugin(self.name)


class DaskRunner:
    """Deals blocks to the workers of a cluster, and checks their commits."""

    def __init__(self, engine: DaskEngine, job: Job, segment: Segment) -> None:
        self.engine, self.job, self.segment = engine, job, segment
        self.measures = LoopMeasures()
        self.least_accuracy = least_accuracy(job, engine.settings)
        self.errors: dict[int, Exception] = {}

    def run(self, blocks: list[int], *, adopt: bool = False) -> None:
        """Deal blocks and measure their commits. A block that fails every time is noted, and the others go on."""
        from kdcache.pipelines.extract.dask_worker import extract_block

        progress, stop = self.engine.progress, self.engine.stop
        total_rows, row_count, commit_count = rows_of(self.segment, blocks), 0, 0
        progress("extracting", row_count, total_rows)
        task = partial(extract_block, self.engine.name, adopt)
        for block, outcome in self.engine.cluster.each(task, blocks, poll=lambda: stop.check(RESUME)):
            if isinstance(outcome, Exception):
                self._fail(block, outcome, commit_count)
                continue
            if outcome.commit is not None:
                self._require_visible(outcome.commit, outcome.worker)
                commit_count += 1
            self._measure(block, outcome)
            row_count += rows_of(self.segment, [block])
            progress("extracting", row_count, total_rows)

    def finish(self) -> LoopMeasures:
        """The measures of all blocks. Raises BlocksFailedError, naming blocks and samples, where blocks failed."""
        if not self.errors:
            return self.measures.end()
        lines = [self._failure_line(block, error) for block, error in sorted(self.errors.items())]
        problem = (
            f"{len(lines)} of {self.segment.layout.blocks} blocks failed again and again; the others were tried, and "
            "what was committed stays. Nothing was sealed:"
        )
        advice = "mend that, and run the same command again: it does the rest"
        raise BlocksFailedError("\n".join([problem, *lines, advice]))

    def _measure(self, block: int, report: "BlockReport") -> None:
        measures, batch_rows = self.measures, self.job.batch_rows
        measures.add(block, report.commit)
        measures.require_accuracy(self.least_accuracy)
        measures.waited_for_writer += report.waited_for_writer
        measures.waited_for_views += report.waited_for_views
        measures.memory_peak_worker = max(measures.memory_peak_worker or 0, report.peak or 0) or None
        if report.batch_rows != batch_rows:
            problem = f"worker {report.worker} ran out of memory and went on with batches of {report.batch_rows} rows"
            note = f"{problem}: last bits may differ from those of batches of {batch_rows}"
            measures.notes = tuple(dict.fromkeys((*measures.notes, note)))

    def _fail(self, block: int, error: Exception, commit_count: int) -> None:
        if isinstance(error, StoreError):  # a full disk fails for every block
            raise error
        self.errors[block] = error
        if len(self.errors) >= FAILURES_AT_FIRST and not commit_count:
            blocks = ", ".join(map(str, self.errors))
            problem = f"the first {len(self.errors)} blocks failed again and again ({blocks}), and none was committed"
            advice = "the others were not tried; mend that, and run the same command again"
            raise BlocksFailedError(f"{problem}: {type(error).__name__}: {error}; {advice}") from error

    def _failure_line(self, block: int, error: Exception) -> str:
        start, stop = self.segment.layout.block_rows(block)
        names = [self.job.sample_name(position) for position in range(start, min(stop, start + NAMED_SAMPLES))]
        rest = f" and {stop - start - NAMED_SAMPLES} more" if stop - start > NAMED_SAMPLES else ""
        problem = f"  block {block} (positions {start} to {stop - 1}): {type(error).__name__}: {error}"
        return f"{problem}; it holds {', '.join(names)}{rest}"

    def _require_visible(self, commit: Commit, worker: str) -> None:
        """Wait until this process sees a worker's commit, since network file systems are slow. Raises ClusterError."""
        segment, deadline = self.segment, time.monotonic() + VISIBLE_SECONDS
        while read_commit(segment.folder, segment.layout, commit.block) != commit:
            if time.monotonic() > deadline:
                problem = (
                    f"worker {worker} committed block {commit.block}, and {segment.folder.root} does not have it here"
                )
                raise ClusterError(f"{problem}; put the store into a folder that all machines share, at one path")
            time.sleep(0.5)


def _require_none_failed(outcomes: Mapping[str, object]) -> None:
    for _, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Exception):
            raise outcome
