"""Extraction on a Dask cluster: its workers build the same job, are dealt blocks, and have their commits checked."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from kdcache.base.cluster import Cluster, open_cluster
from kdcache.base.engine_settings import wants_dask
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import BlocksFailedError, ClusterError, StoreError
from kdcache.pipelines.extract.block_loop import RESUME, BlockLoop
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit, read_commit
from kdcache.store.segment import Segment

FAILURES_AT_FIRST = 8  # once so many blocks failed and none was committed, the other blocks are not tried
NAMED_SAMPLES = 64  # of a failed block, at most
VISIBLE_SECONDS = 60.0  # that a network file system has to show a worker's commit to this process
PRELOAD = ("kdcache.pipelines.extract.dask_worker", "kdcache.pipelines.extract.stage")


@contextmanager
def cluster_for(settings: ExtractSettings, progress: Progress, stop: StopRequest) -> Iterator[Cluster | None]:
    """Open the cluster that the settings ask for; None: this process alone. Raises InvalidInputError, ClusterError."""
    if not wants_dask(settings):
        yield None
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
        progress(f"dask workers, dashboard {cluster.dashboard or 'off'}", worker_count, worker_count)
        yield cluster


def visible_gpus() -> tuple[str, ...]:
    """This machine's GPUs as values of CUDA_VISIBLE_DEVICES."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(names or map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else ()


@contextmanager
def workers_on(
    cluster: Cluster | None, settings: ExtractSettings, job: Job, view_bytes: int
) -> Iterator["ExtractWorkers | None"]:
    """The workers of a cluster, once each has built the job; None where there is no cluster. Afterwards the workers of
    a cluster that goes on forget the job. Raises ClusterError."""
    if cluster is None:
        yield None
        return
    workers = ExtractWorkers(cluster, settings, job, view_bytes)
    try:
        workers.require_fit()
        yield workers
    finally:
        if settings.scheduler and cluster.client.status == "running":
            cluster.client.unregister_worker_plugin(workers.name)


class ExtractWorkers:
    """The workers of a cluster with one extraction's job on each."""

    def __init__(self, cluster: Cluster, settings: ExtractSettings, job: Job, view_bytes: int) -> None:
        from kdcache.pipelines.extract.dask_worker import WorkerJob

        self.cluster, self.settings, self.job = cluster, settings, job
        self.name = f"kdcache-extract-{uuid.uuid4().hex}"
        self.errors: dict[int, Exception] = {}
        worker_settings = settings.model_copy(update={"store": os.path.abspath(settings.store)})
        try:
            cluster.client.register_plugin(WorkerJob(worker_settings, job.identity, view_bytes), name=self.name)
        except Exception as error:
            advice = "install kdcache with all that it needs on every worker"
            raise ClusterError(
                f"a worker cannot take the job on ({type(error).__name__}: {error}); {advice}"
            ) from error

    def require_fit(self) -> None:
        """Raises ClusterError, naming the worker, where one cannot build the job, or builds another."""
        from kdcache.pipelines.extract.dask_worker import open_worker_job

        _require_none_failed(self.cluster.everywhere(open_worker_job, self.name))

    def require_shared(self) -> None:
        """Raises ClusterError, naming the worker, where one does not see the store."""
        from kdcache.pipelines.extract.dask_worker import see_store

        _require_none_failed(self.cluster.everywhere(see_store, self.name))

    def extract(
        self,
        segment: Segment,
        blocks: list[int],
        loop: BlockLoop,
        *,
        progress: Progress,
        stop: StopRequest,
        adopt: bool = False,
    ) -> None:
        """Deal blocks, and note their commits in `loop`, and in `errors` the error of a block that fails every time."""
        from kdcache.pipelines.extract.dask_worker import extract_block

        total_rows, row_count = sum(_row_count(segment, block) for block in blocks), 0
        progress("extracting", row_count, total_rows)
        task, commit_count = partial(extract_block, self.name, adopt), 0
        for block, outcome in self.cluster.each(task, blocks, poll=lambda: stop.check(RESUME)):
            if isinstance(outcome, Exception):
                self._fail(block, outcome, commit_count)
                continue
            if outcome.commit is not None:
                self._require_visible(segment, outcome.commit, outcome.worker)
                commit_count += 1
            loop.note(block, outcome.commit)
            loop.require_sane(self.job.identity.teacher.classes, self.settings.min_accuracy)
            loop.waited_for_writer += outcome.waited_for_writer
            loop.waited_for_views += outcome.waited_for_views
            loop.peak_worker = max(loop.peak_worker or 0, outcome.peak or 0) or None
            if outcome.batch_rows != self.job.batch_rows:
                problem = (
                    f"worker {outcome.worker} ran out of memory and went on with batches of {outcome.batch_rows} rows"
                )
                note = f"{problem}: last bits may differ from those of batches of {self.job.batch_rows}"
                loop.notes = tuple(dict.fromkeys((*loop.notes, note)))
            row_count += _row_count(segment, block)
            progress("extracting", row_count, total_rows)

    def require_whole(self, segment: Segment) -> None:
        """Raises BlocksFailedError, naming blocks and samples, where blocks failed."""
        if not self.errors:
            return
        lines = [self._failure_line(segment, block, error) for block, error in sorted(self.errors.items())]
        problem = (
            f"{len(lines)} of {segment.layout.blocks} blocks failed again and again; the others were tried, and what "
            "was committed stays. Nothing was sealed:"
        )
        advice = (
            "mend that, or leave these samples out of the data set, and run the same command again: it does the rest"
        )
        raise BlocksFailedError("\n".join([problem, *lines, advice]))

    def _fail(self, block: int, error: Exception, commit_count: int) -> None:
        if isinstance(error, StoreError):  # a full disk fails for every block
            raise error
        self.errors[block] = error
        if len(self.errors) >= FAILURES_AT_FIRST and not commit_count:
            blocks = ", ".join(map(str, self.errors))
            problem = f"the first {len(self.errors)} blocks failed again and again ({blocks}), and none was committed"
            advice = "the others were not tried; mend that, and run the same command again"
            raise BlocksFailedError(f"{problem}: {type(error).__name__}: {error}; {advice}") from error

    def _failure_line(self, segment: Segment, block: int, error: Exception) -> str:
        start, stop = segment.layout.block_rows(block)
        names = [self.job.sample_name(position) for position in range(start, min(stop, start + NAMED_SAMPLES))]
        rest = f" and {stop - start - NAMED_SAMPLES} more" if stop - start > NAMED_SAMPLES else ""
        problem = f"  block {block} (positions {start} to {stop - 1}): {type(error).__name__}: {error}"
        return f"{problem}; it holds {', '.join(names)}{rest}"

    def _require_visible(self, segment: Segment, commit: Commit, worker: str) -> None:
        """Wait until this process sees a worker's commit, since network file systems are slow. Raises ClusterError."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while read_commit(segment.folder, segment.layout, commit.block) != commit:
            if time.monotonic() > deadline:
                problem = (
                    f"worker {worker} committed block {commit.block}, and {segment.folder.root} does not have it here"
                )
                raise ClusterError(f"{problem}; put the store into a folder that all machines share, at one path")
            time.sleep(0.5)


def _row_count(segment: Segment, block: int) -> int:
    start, stop = segment.layout.block_rows(block)
    return (stop - start) * len(segment.views)


def _require_none_failed(outcomes: Mapping[str, object]) -> None:
    for _, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Exception):
            raise outcome
