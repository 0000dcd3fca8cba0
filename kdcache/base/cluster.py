"""Many processes or machines through Dask distributed: workers of one kdcache version, and work dealt to them.

`Cluster` is an `engine.Engine`. A task may run more than once, since workers die: it must be idempotent. Dask is
imported when a cluster is opened.
"""

import asyncio
import importlib.metadata
import importlib.util
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kdcache.base.engine import AHEAD, RETRIES, idle
from kdcache.base.local_cluster import DASHBOARD, local_cluster
from kdcache.errors import ClusterError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

PATIENCE = 10.0  # seconds that a scheduler has to answer, and to have a worker
LEFT_ALONE = 300.0  # seconds without any worker after which work is given up
LOOK = 0.2  # seconds between two looks at a request to stop
COUNT = 2.0  # seconds between two counts of the workers
ITEMS_PER_TASK = 16  # blocks that are checked in one task: sha256 of a small one takes less than dealing it
DEATHS = 1  # times that a task is dealt again after Dask gave it up: workers died of it, or of another task
NO_DASHBOARD = "off; pip install 'kdcache[dashboard]'"


@dataclass
class _Flight(Generic[I]):
    """One item that is being worked on."""

    item: I
    errors: int = 0
    deaths: int = 0


class Cluster:
    """Workers that all have this process's kdcache version. `dashboard` is the address of its page, "" for none and
    without bokeh, which draws it. `processes` are the cluster's own on this machine: they are started anew where Dask
    has given one up."""

    items_per_task = ITEMS_PER_TASK

    def __init__(self, client: Any, address: str, dashboard: str, processes: Any = None) -> None:
        self.client = client
        self._processes = processes
        self.address = address
        self.dashboard = dashboard
        self._version = importlib.metadata.version("kdcache")
        self._count_time, self._worker_count, self._worker_time = 0.0, 0, time.monotonic()

    @property
    def workers(self) -> int:
        """The number of workers that there are now, 1 at least."""
        return max(len(self.client.nthreads()), 1)

    @property
    def dashboard_text(self) -> str:
        """The address of the dashboard for people, or why there is none."""
        return self.dashboard or ("off" if _has_bokeh() else NO_DASHBOARD)

    def each(
        self,
        function: Callable[[I], R | Future[R]],
        items: Iterable[I],
        *,
        ahead: int = AHEAD,
        retries: int = RETRIES,
        poll: Callable[[], None] = idle,
    ) -> Iterator[tuple[I, R | Exception]]:
        """Each item with `function(item)`, or with the error of the last of 1 + `retries` attempts at it.

        Items come in the order in which they end; at most `ahead` a worker are under way. A caller that stops iterating
        cancels the rest.

        `function` is pickled: a module's function, or a partial of one. `poll` is called several times a second while
        nothing ends, and may raise. Raises ClusterError where the cluster is lost, has no worker for five minutes, or
        has a worker of another kdcache version, and where `function` raises one: then its worker is not fit for it. A
        task whose workers die again and again yields Dask's KilledWorker: it is dealt once more when all else is done,
        alone, since workers may have died of another task that was with it.
        """
        remaining, results = iter(items), queue.SimpleQueue[Any]()
        flights: dict[Any, _Flight[I]] = {}
        suspects: list[_Flight[I]] = []

        def launch(flight: _Flight[I]) -> None:
            future = self.client.submit(_run, self._version, function, flight.item, pure=False)
            flights[future] = flight
            future.add_done_callback(results.put)

        try:
            while True:
                while len(flights) < ahead * max(self._count_workers(), 1):
                    try:
                        launch(_Flight(next(remaining)))
                    except StopIteration:
                        break
                if not flights and suspects:
                    launch(suspects.pop(0))
                if not flights:
                    return
                future = self._next_future(results, poll)
                flight = flights.pop(future)
                outcome = self._outcome(future)
                if isinstance(outcome, ClusterError):
                    raise outcome
                if isinstance(outcome, Exception) and _is_dealt_again(flight, outcome, retries):
                    if flight.deaths:
                        suspects.append(flight)
                    else:
                        launch(flight)
                else:
                    yield flight.item, outcome
        finally:
            if flights and self.client.status == "running":
                self.client.cancel(list(flights), force=True)

    def everywhere(self, function: Callable[..., R], *arguments: Any) -> dict[str, R | Exception]:
        """Worker's address -> result or error of `function(*arguments)`, run once on each worker that there is now.
        Raises ClusterError where the scheduler is lost."""
        if self.client.status != "running":
            raise ClusterError(f"the connection to the scheduler is {self.client.status}; start it again")
        try:
            results: dict[str, R | Exception] = self.client.run(function, *arguments, on_error="return")
        except OSError as error:
            raise self._lost_error(error) from error
        return results

    def require_version(self) -> None:
        """Raises ClusterError, naming worker and both versions, where a worker has another kdcache. Asks Dask itself,
        so that nothing of kdcache is unpickled there."""
        workers = self.client.get_versions(packages=["kdcache"])["workers"]
        for address, versions in sorted(workers.items()):
            version = versions["packages"].get("kdcache") or "none"
            if version != self._version:
                raise _version_error(address, version, self._version)

    def _next_future(self, results: "queue.SimpleQueue[Any]", poll: Callable[[], None]) -> Any:
        while True:
            poll()
            try:
                return results.get(timeout=LOOK)
            except queue.Empty:
                self._count_workers()

    def _count_workers(self) -> int:
        """Number of workers, asked for now and then. Raises ClusterError where none came back."""
        now = time.monotonic()
        if now - self._count_time > COUNT:
            try:
                self._worker_count = len(self.client.nthreads())
            except OSError as error:
                raise self._lost_error(error) from error
            self._count_time = now
            if self._processes is not None and self._worker_count < len(self._processes.worker_spec):
                self._processes.scale(len(self._processes.worker_spec))  # does nothing while Dask still restarts them
            self._worker_time = now if self._worker_count else self._worker_time
            if now - self._worker_time > LEFT_ALONE:
                advice = "what was committed stays; start workers, and run the same command again"
                raise ClusterError(f"{self.address} has had no worker for {LEFT_ALONE:.0f} s; {advice}")
        return self._worker_count

    def _outcome(self, future: Any) -> Any:
        """A task's result, or its error as a value. Raises ClusterError for an error of the cluster itself."""
        from distributed.client import FutureCancelledError

        try:
            return future.result()
        except _OtherVersionError as error:
            raise _version_error(*error.args) from None
        except (FutureCancelledError, OSError) as error:
            if self.client.status == "running" and not future.cancelled():
                return error
            raise self._lost_error(error) from error
        except Exception as error:  # noqa: BLE001  whatever the function raises is its item's outcome
            return error

    def _lost_error(self, error: Exception) -> ClusterError:
        advice = "what was committed stays; start it, and run the same command again"
        return ClusterError(f"the scheduler {self.address} was lost ({type(error).__name__}: {error}); {advice}")


@contextmanager
def open_cluster(
    *,
    scheduler: str = "",
    workers: int = 0,
    gpus: Sequence[str] = (),
    dashboard: str = DASHBOARD,
    preload: Sequence[str] = (),
) -> Iterator[Cluster]:
    """A cluster of a running scheduler's workers, or of processes of this machine that end with the block.

    `workers` processes of one thread each, by default one for each of `gpus` (values of CUDA_VISIBLE_DEVICES, dealt
    round robin) or, without any, one a core up to 8; where dask-cuda is installed it places those on GPUs. `dashboard`
    is the address that its page is bound to, "" for none; all other sockets listen on loopback alone. `preload` names
    modules that worker processes have imported from the start, so that one that died is back at once (Linux).

    Raises ClusterError for a scheduler that does not answer, has no worker, or has one of another kdcache version.
    """
    import distributed

    with ExitStack() as stack:
        if scheduler:
            _require_answer(scheduler)
        target = scheduler or stack.enter_context(local_cluster(workers, gpus, dashboard, preload))
        client: Any = distributed.Client(target, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
        stack.callback(client.close)
        address = str(client.scheduler.address)
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            advice = f"start some: dask worker {address} --nthreads 1"
            raise ClusterError(f"the scheduler {address} has no worker after {PATIENCE:.0f} s; {advice}") from error
        page = client.dashboard_link if scheduler or (dashboard and _has_bokeh()) else ""
        cluster = Cluster(client, address, page, None if scheduler else target)
        cluster.require_version()
        yield cluster


def _has_bokeh() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def _require_answer(scheduler: str) -> None:
    """Raises ClusterError where no Dask scheduler answers. It is asked first, for a client that fails to start leaves
    threads behind."""
    from distributed.comm.core import connect
    from distributed.security import Security

    async def ask() -> None:
        attempt = connect(scheduler, timeout=PATIENCE, **Security().get_connection_args("client"))  # type: ignore[no-untyped-call]
        comm = await asyncio.wait_for(attempt, PATIENCE + 1)  # something else may take the connection and say nothing
        await comm.close()

    try:
        asyncio.run(ask())
    except (OSError, ValueError) as error:
        reason = str(error) or f"it took the connection and said nothing for {PATIENCE:.0f} s"
        advice = "start one with `dask scheduler`, or leave --scheduler out to use this machine alone"
        raise ClusterError(f"no Dask scheduler answers at {scheduler} ({reason}); {advice}") from error


class _OtherVersionError(Exception):
    """Another kdcache version on a worker that joined later; arguments: worker, its version, the client's."""


def _run(version: str, function: Callable[[I], R], item: I) -> R:
    """`function(item)` on a worker. Raises _OtherVersionError where the worker has another kdcache."""
    if (current := importlib.metadata.version("kdcache")) != version:
        from distributed import get_worker

        raise _OtherVersionError(get_worker().address, current, version)
    return function(item)


def _version_error(worker: str, version: str, expected: str) -> ClusterError:
    return ClusterError(
        f"worker {worker} has kdcache {version}, this process has {expected}; install one version everywhere, restart "
        "that worker, and run the same command again"
    )


def _is_dealt_again(flight: _Flight[Any], error: Exception, retries: int) -> bool:
    """True where an item is to be dealt once more. Dask gives a task up after four workers died while they had it,
    which may be another task's fault."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        flight.deaths += 1
        return flight.deaths <= DEATHS
    flight.errors += 1
    return flight.errors <= retries
