"""Extraction on a Dask cluster: blocks dealt to workers that have built the same job, and their commits looked at."""

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

FIRST_FAILED = 8  # blocks that fail before any is committed, after which the others are not tried
NAMED = 64  # samples of a failed block that are named
SHARED_AFTER = 60.0  # seconds after which a network file system must show here what a worker committed
PRELOAD = ("kdcache.pipelines.extract.dask_worker", "kdcache.pipelines.extract.stage")


@contextmanager
def opened(settings: ExtractSettings, progress: Progress, stop: StopRequest) -> Iterator[Cluster | None]:
    """The cluster that the settings ask for, None for this process alone. Raises InvalidInputError and ClusterError."""
    if not wants_dask(settings):
        yield None
        return
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                open_cluster(
                    scheduler=settings.scheduler,
                    workers=settings.dask_workers,
                    gpus=() if settings.device.startswith("cpu") else gpus_here(),
                    dashboard=settings.dashboard,
                    preload=PRELOAD,
                )
            )
        except ClusterError:
            stop.check(RESUME)  # Ctrl-C reaches processes that are being started, too
            raise
        count = len(cluster.everywhere(os.getpid))
        progress(f"dask workers, dashboard {cluster.dashboard or 'off'}", count, count)
        yield cluster


def gpus_here() -> tuple[str, ...]:
    """This machine's GPUs as values of CUDA_VISIBLE_DEVICES."""
    given = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return tuple(given or map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else ()


@contextmanager
def fleet_of(cluster: Cluster | None, settings: ExtractSettings, job: Job, view_bytes: int) -> Iterator["Fleet | None"]:
    """The workers of a cluster, once each has built the job; None where there is no cluster. Workers of a cluster that
    goes on forget the job afterwards. Raises ClusterError."""
    if cluster is None:
        yield None
        return
    fleet = Fleet(cluster, settings, job, view_bytes)
    try:
        fleet.require_fit()
        yield fleet
    finally:
        if settings.scheduler and cluster.client.status == "running":
            cluster.client.unregister_worker_plugin(fleet.name)


class Fleet:
    """The workers of a cluster with one extraction's job on each."""

    def __init__(self, cluster: Cluster, settings: ExtractSettings, job: Job, view_bytes: int) -> None:
        from kdcache.pipelines.extract.dask_worker import Bench

        self.cluster, self.settings, self.job = cluster, settings, job
        self.name = f"kdcache-extract-{uuid.uuid4().hex}"
        self.failed: dict[int, Exception] = {}
        theirs = settings.model_copy(update={"store": os.path.abspath(settings.store)})
        try:
            cluster.client.register_plugin(Bench(theirs, job.identity, view_bytes), name=self.name)
        except Exception as error:
            advice = "install kdcache with all that it needs on every worker"
            raise ClusterError(
                f"a worker cannot take the job on ({type(error).__name__}: {error}); {advice}"
            ) from error

    def require_fit(self) -> None:
        """Raises ClusterError, naming the worker, where one cannot build the job, or builds another."""
        from kdcache.pipelines.extract.dask_worker import open_bench

        _require_none_failed(self.cluster.everywhere(open_bench, self.name))

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
        """Deal blocks, and note what comes back in `loop`; a block that fails again and again is noted in `failed`."""
        from kdcache.pipelines.extract.dask_worker import extract_block

        total, done = sum(_rows(segment, block) for block in blocks), 0
        progress("extracting", done, total)
        task, committed = partial(extract_block, self.name, adopt), 0
        for block, outcome in self.cluster.each(task, blocks, poll=lambda: stop.check(RESUME)):
            if isinstance(outcome, Exception):
                self._fail(block, outcome, committed)
                continue
            if outcome.commit is not None:
                self._require_visible(segment, outcome.commit, outcome.worker)
                committed += 1
            loop.note(block, outcome.commit)
            loop.require_sane(self.job.identity.teacher.classes, self.settings.min_accuracy)
            loop.waited_for_writer += outcome.waited_for_writer
            loop.waited_for_views += outcome.waited_for_views
            loop.peak_worker = max(loop.peak_worker or 0, outcome.peak or 0) or None
            if outcome.batch_rows != self.job.batch_rows:
                said = (
                    f"worker {outcome.worker} ran out of memory and went on with batches of {outcome.batch_rows} rows"
                )
                note = f"{said}: last bits may differ from those of batches of {self.job.batch_rows}"
                loop.notes = tuple(dict.fromkeys((*loop.notes, note)))
            done += _rows(segment, block)
            progress("extracting", done, total)

    def require_whole(self, segment: Segment) -> None:
        """Raises BlocksFailedError, naming blocks and samples, where some failed."""
        if not self.failed:
            return
        lines = [self._told(segment, block, error) for block, error in sorted(self.failed.items())]
        what = f"{len(lines)} of {segment.layout.blocks} blocks failed again and again; the others were tried, and what"
        advice = (
            "mend that, or leave these samples out of the data set, and run the same command again: it does the rest"
        )
        raise BlocksFailedError("\n".join([f"{what} was committed stays. Nothing was sealed:", *lines, advice]))

    def _fail(self, block: int, error: Exception, committed: int) -> None:
        if isinstance(error, StoreError):  # a full disk fails for every block
            raise error
        self.failed[block] = error
        if len(self.failed) >= FIRST_FAILED and not committed:
            blocks = ", ".join(map(str, self.failed))
            said = f"the first {len(self.failed)} blocks failed again and again ({blocks}), and none was committed"
            advice = "the others were not tried; mend that, and run the same command again"
            raise BlocksFailedError(f"{said}: {type(error).__name__}: {error}; {advice}") from error

    def _told(self, segment: Segment, block: int, error: Exception) -> str:
        first, last = segment.layout.block_rows(block)
        names = [self.job.sample_name(position) for position in range(first, min(last, first + NAMED))]
        more = f" and {last - first - NAMED} more" if last - first > NAMED else ""
        said = f"  block {block} (positions {first} to {last - 1}): {type(error).__name__}: {error}"
        return f"{said}; it holds {', '.join(names)}{more}"

    def _require_visible(self, segment: Segment, commit: Commit, worker: str) -> None:
        """A commit that a worker made must be seen here; a network file system may take a while."""
        until = time.monotonic() + SHARED_AFTER
        while read_commit(segment.folder, segment.layout, commit.block) != commit:
            if time.monotonic() > until:
                said = (
                    f"worker {worker} committed block {commit.block}, and {segment.folder.root} does not have it here"
                )
                raise ClusterError(f"{said}; put the store into a folder that all machines share, at one path")
            time.sleep(0.5)


def _rows(segment: Segment, block: int) -> int:
    start, stop = segment.layout.block_rows(block)
    return (stop - start) * len(segment.views)


def _require_none_failed(found: Mapping[str, object]) -> None:
    for _, outcome in sorted(found.items()):
        if isinstance(outcome, Exception):
            raise outcome
