"""A Dask worker of an extraction builds the job once, and turns blocks into commits."""

import asyncio
import multiprocessing
import socket
import threading
import time
from dataclasses import replace

import torch
from distributed import Worker, WorkerPlugin, get_worker

from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import silent
from kdcache.base.records import require_equal
from kdcache.errors import ClusterError, MismatchError, StoreError
from kdcache.pipelines.extract.block_report import BlockReport, RowProgress
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.local_blocks import LocalBlocks
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import Identity
from kdcache.store.segment import Segment
from kdcache.store.store import Store

SHARE = "put the store into a folder that all machines share, at one path"


class WorkerJob(WorkerPlugin):
    """The job of one extraction on one worker, as a plugin of Dask. It is built when it is first needed and then kept,
    so data set and teacher are read once a worker. A second thread of the worker waits: a teacher answers one batch at
    a time. `fresh_address`: at which its fresh process is forked, "" where none is."""

    worker: str
    _lock: threading.Lock
    _job: Job | None
    _segment: Segment | None
    _fresh: FreshDraws | None
    _has_ended: bool

    def __init__(self, settings: ExtractSettings, identity: Identity, fresh_address: str = "") -> None:
        self.settings, self.identity, self.fresh_address = settings, identity, fresh_address

    def setup(self, worker: Worker) -> None:
        self.worker = f"{worker.address} ({socket.gethostname()})"
        self._lock, self._job, self._segment, self._fresh = threading.Lock(), None, None, None
        self._has_ended = False

    def teardown(self, worker: Worker) -> None:
        """End the work: the fresh process ends, and nothing keeps data set and teacher, or a device's memory. A block
        that is under way on another thread ends, and no other begins."""
        self._has_ended = True
        if self._fresh is not None:
            self._fresh.close()
        self._let_go()

    def open(self) -> None:
        """Build the job. Raises ClusterError, naming the worker, where it cannot be built or is not the client's."""
        with self._lock:
            self._open()

    def see_store(self) -> None:
        """Raises ClusterError where this worker does not see the store."""
        with self._lock:
            self._open_segment(self._open())

    def extract(self, block: int, adopt: bool) -> BlockReport:
        """Commit one block, unless it is committed already. Out of memory, this worker's batches halve for good."""
        with self._lock:
            job = self._open()
            segment = self._open_segment(job)
            if (commit := segment.find_commit(block)) is not None:
                return BlockReport(self.worker, commit, job.batch_rows, peak=peak_rss_bytes())
            return self._ask(job, segment, block, adopt)

    def _ask(self, job: Job, segment: Segment, block: int, adopt: bool) -> BlockReport:
        work = LocalBlocks(self.settings, place=f"worker {self.worker}")
        work.begin(job, segment, self._fresh)
        try:
            with work.extracting([block], adopt=adopt, rows=RowProgress(silent)) as extract:
                extract.expect([block])
                future = extract(block)
                answer_time = time.monotonic()
                report = future.result()
        finally:
            self._job = work.job
            if self._has_ended:
                self._let_go()
        waited_for_writer = time.monotonic() - answer_time
        return replace(report, worker=self.worker, waited_for_writer=waited_for_writer, peak=peak_rss_bytes())

    def _let_go(self) -> None:
        self._job, self._segment, self._fresh = None, None, None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _open(self) -> Job:
        if self._has_ended:
            raise ClusterError(f"worker {self.worker}: this extraction has ended, and its block was not begun")
        if self._job is None:
            self._job = self._build()
        return self._job

    def _build(self) -> Job:
        if self.settings.workers and multiprocessing.current_process().daemon:
            advice = "start workers with DASK_DISTRIBUTED__WORKER__DAEMON=False, or extract with --workers 0"
            raise ClusterError(
                f"worker {self.worker} is daemonic and may not start processes that draw views; {advice}"
            )
        try:
            job = open_job(self.settings)
            self._fresh = FreshDraws(self.settings, address=self.fresh_address)
            self._fresh.begin(job)
        except Exception as error:
            problem = f"worker {self.worker} cannot build this extraction ({type(error).__name__}: {error})"
            advice = "give every worker the same data, teacher and packages, at the same names, as this process has"
            raise ClusterError(f"{problem}; {advice}") from error
        try:
            require_equal(
                job.identity,
                self.identity,
                f"worker {self.worker} would extract something else:",
                "give every worker the same data, teacher and packages as this process has",
                names=("the worker", "this process"),
            )
        except MismatchError as error:
            raise ClusterError(str(error)) from error
        self._fresh.require_begin()
        return job

    def _open_segment(self, job: Job) -> Segment:
        if self._segment is None:
            store = self._open_store()
            segments = {segment.views: segment for segment in store.segments}
            if store.identity.digest != self.identity.digest or job.views not in segments:
                raise ClusterError(f"worker {self.worker} finds another store at {self.settings.store}; {SHARE}")
            self._segment = segments[job.views]
        return self._segment

    def _open_store(self) -> Store:
        try:
            return Store.open_for_writing(self.settings.store)
        except StoreError as error:
            raise ClusterError(f"worker {self.worker} does not see the store ({error}); {SHARE}") from error


async def open_worker_job(name: str, dask_worker: Worker) -> None:
    """Build the job on this worker, beside its event loop: the scheduler must hear from it meanwhile."""
    await asyncio.to_thread(_worker_job(dask_worker, name).open)


async def see_store(name: str, dask_worker: Worker) -> None:
    """Open the store on this worker."""
    await asyncio.to_thread(_worker_job(dask_worker, name).see_store)


def extract_block(name: str, adopt: bool, block: int) -> BlockReport:
    """The task of Dask: one block of the extraction whose job is the plugin of this name."""
    return _worker_job(get_worker(), name).extract(block, adopt)


def _worker_job(worker: Worker, name: str) -> WorkerJob:
    plugin = worker.plugins[name]
    assert isinstance(plugin, WorkerJob)
    return plugin
