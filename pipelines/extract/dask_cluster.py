"""The work on blocks is opened as the settings ask for it: in this process, or dealt to a Dask cluster's workers."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from kdcache.base.cluster import Cluster
from kdcache.base.devices import visible_gpus
from kdcache.base.launch import Launch
from kdcache.base.open_engine import open_engine
from kdcache.base.progress import Progress, StopRequest
from kdcache.errors import ClusterError
from kdcache.pipelines.extract.block_report import RESUME, BlockReport, RowProgress, rows_of
from kdcache.pipelines.extract.block_runner import BlockWork
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.local_blocks import LocalBlocks
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.segment import Segment

PRELOAD = ("kdcache.pipelines.extract.dask_worker", "kdcache.pipelines.extract.stage")


@contextmanager
def open_work(
    settings: ExtractSettings, launch: Launch, progress: Progress, stop: StopRequest, fresh_address: str = ""
) -> Iterator[BlockWork]:
    """Open the engine that the settings ask for, and the work of an extraction on it. `fresh_address`: at which workers
    have fresh processes forked. Afterwards the workers of a cluster that goes on forget the job. Raises
    InvalidInputError, ClusterError."""
    gpus = tuple[str, ...] if settings.device.startswith("cpu") else visible_gpus
    with ExitStack() as stack:
        opening = open_engine(settings, gpus=gpus, dashboard=settings.dashboard, preload=PRELOAD, progress=progress)
        try:
            engine = stack.enter_context(opening)
        except ClusterError:
            stop.check(RESUME)  # Ctrl-C reaches processes that are being started, too
            raise
        if isinstance(engine, Cluster):
            yield stack.enter_context(DaskBlocks(engine, settings, fresh_address).forgotten())
        else:
            yield LocalBlocks(settings, progress=progress, stop=stop, launch=launch)


class DaskBlocks:
    """The work on blocks on the workers of a cluster. Each builds the job once, under the extraction's own name."""

    memory_bound = memory_peak = None

    def __init__(self, engine: Cluster, settings: ExtractSettings, fresh_address: str = "") -> None:
        self.engine, self._settings, self._name = engine, settings, f"kdcache-extract-{uuid.uuid4().hex}"
        self._fresh_address = fresh_address
        self._is_placed = False

    @contextmanager
    def forgotten(self) -> Iterator["DaskBlocks"]:
        """This work; where the cluster goes on, its workers forget the job at the end."""
        try:
            yield self
        finally:
            if self._is_placed and self._settings.scheduler and self.engine.client.status == "running":
                with suppress(Exception):  # of a worker that is lost or cannot end: the outcome of the work stands
                    self.engine.client.unregister_worker_plugin(self._name)

    def require_fit(self, job: Job) -> None:
        """Build the job on each worker. Raises ClusterError, naming one that cannot, or that builds another."""
        from kdcache.pipelines.extract.dask_worker import WorkerJob, open_worker_job

        paths = {"store": self._settings.store, "class_map": os.path.expanduser(self._settings.class_map)}
        by_name = {name: os.path.abspath(path) for name, path in paths.items() if path}
        settings = self._settings.model_copy(update=by_name)
        try:
            self.engine.client.register_plugin(WorkerJob(settings, job.identity, self._fresh_address), name=self._name)
        except Exception as error:
            advice = "install kdcache with all that it needs on every worker"
            raise ClusterError(
                f"a worker cannot take the job on ({type(error).__name__}: {error}); {advice}"
            ) from error
        self._is_placed = True
        _require_none_failed(self.engine.everywhere(open_worker_job, self._name))

    def begin(self, job: Job, segment: Segment, fresh: FreshDraws | None = None) -> None:
        """Let each worker open the segment's store. They have fresh processes of their own, so this one's ends."""
        from kdcache.pipelines.extract.dask_worker import see_store

        if fresh is not None:
            fresh.leave()
        self._segment = segment
        _require_none_failed(self.engine.everywhere(see_store, self._name))

    @contextmanager
    def extracting(
        self, blocks: list[int], *, adopt: bool, rows: RowProgress
    ) -> Iterator[Callable[[int], BlockReport]]:
        from kdcache.pipelines.extract.dask_worker import extract_block

        rows.begin(rows_of(self._segment, blocks))
        yield partial(extract_block, self._name, adopt)


def _require_none_failed(outcomes: Mapping[str, object]) -> None:
    for _, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Exception):
            raise outcome
