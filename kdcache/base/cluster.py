"""Many processes or machines through Dask distributed: workers of one kdcache version, and work dealt to them.

The engine knows nothing of what it runs: `Cluster.each` takes a function and items, and yields each item with its
result as it ends. A task may run more than once, since workers die: it must be idempotent. Dask is imported when a
cluster is opened.
"""

import asyncio
import importlib.metadata
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kdcache.base.local_cluster import DASHBOARD, local_cluster
from kdcache.errors import ClusterError, InvalidInputError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

PATIENCE = 10.0  # seconds that a scheduler has to answer, and to have a worker
LEFT_ALONE = 300.0  # seconds without any worker after which work is given up
LOOK = 0.2  # seconds between two looks at a request to stop
COUNT = 2.0  # seconds between two counts of the workers
DEATHS = 1  # times that a task is dealt again after Dask gave it up, for workers died of it or beside it
INSTALL = "Dask is not installed; pip install 'kdcache[dask]'"


@dataclass
class _Flight(Generic[I]):
    """One item that is being worked on."""

    item: I
    errors: int = 0
    deaths: int = 0


class Cluster:
    """Workers that are all of this process's kdcache version. `dashboard` is the address to look at, "" for none;
    `processes` of this machine are started anew where Dask has given one up."""

    def __init__(self, client: Any, address: str, dashboard: str, processes: Any = None) -> None:
        self.client = client
        self._processes = processes
        self.address = address
        self.dashboard = dashboard
        self._version = importlib.metadata.version("kdcache")
        self._counted, self._workers, self._seen = 0.0, 0, time.monotonic()

    def each(
        self,
        function: Callable[[I], R],
        items: Iterable[I],
        *,
        ahead: int = 2,
        retries: int = 2,
        poll: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[I, R | Exception]]:
        """Each item with `function(item)`, or with the error of its last of 1 + `retries` attempts, in the order in
        which they end; at most `ahead` items a worker are under way. Whoever stops iterating cancels the rest.

        `function` is pickled: a module's function, or a partial of one. `poll` is called several times a second while
        nothing ends, and may raise. Raises ClusterError where the cluster is lost, has no worker for five minutes, or
        has a worker of another kdcache version, and where `function` raises one, which says that its worker is not fit.
        A task whose workers die again and again yields Dask's KilledWorker.
        """
        waiting, ended = iter(items), queue.SimpleQueue[Any]()
        flying: dict[Any, _Flight[I]] = {}

        def launch(flight: _Flight[I]) -> None:
            future = self.client.submit(_run, self._version, function, flight.item, pure=False)
            flying[future] = flight
            future.add_done_callback(ended.put)

        try:
            while True:
                while len(flying) < ahead * max(self._count(), 1):
                    try:
                        launch(_Flight(next(waiting)))
                    except StopIteration:
                        break
                if not flying:
                    return
                future = self._next(ended, poll)
                flight = flying.pop(future)
                outcome = self._outcome(future)
                if isinstance(outcome, ClusterError):
                    raise outcome
                if isinstance(outcome, Exception) and _again(flight, outcome, retries):
                    launch(flight)
                else:
                    yield flight.item, outcome
        finally:
            if flying and self.client.status == "running":
                self.client.cancel(list(flying), force=True)

    def everywhere(self, function: Callable[..., R], *arguments: Any) -> dict[str, R | Exception]:
        """`function(*arguments)` once on every worker there is now: its result or error by the worker's address."""
        found: dict[str, R | Exception] = self.client.run(function, *arguments, on_error="return")
        return found

    def require_version(self) -> None:
        """Raises ClusterError, naming worker and both versions, where a worker has another kdcache. Asks Dask itself,
        so that nothing of kdcache is unpickled there."""
        found = self.client.get_versions(packages=["kdcache"])["workers"]
        for address, versions in sorted(found.items()):
            other = versions["packages"].get("kdcache") or "none"
            if other != self._version:
                raise _other_version(address, other, self._version)

    def _next(self, ended: "queue.SimpleQueue[Any]", poll: Callable[[], None]) -> Any:
        while True:
            poll()
            try:
                return ended.get(timeout=LOOK)
            except queue.Empty:
                self._count()

    def _count(self) -> int:
        """Workers there are, asked now and then. Raises ClusterError where none came back."""
        now = time.monotonic()
        if now - self._counted > COUNT:
            try:
                self._workers = len(self.client.nthreads())
            except OSError as error:
                raise self._lost(error) from error
            self._counted = now
            if self._processes is not None and self._workers < len(self._processes.worker_spec):
                self._processes.scale(len(self._processes.worker_spec))  # nothing while what restarts them is there
            self._seen = now if self._workers else self._seen
            if now - self._seen > LEFT_ALONE:
                advice = "what was committed stays; start workers, and run the same command again"
                raise ClusterError(f"{self.address} has had no worker for {LEFT_ALONE:.0f} s; {advice}")
        return self._workers

    def _outcome(self, future: Any) -> Any:
        """A task's result, or its error as a value; errors of the cluster itself are raised."""
        from distributed.client import FutureCancelledError

        try:
            return future.result()
        except _OtherVersionError as error:
            raise _other_version(*error.args) from None
        except (FutureCancelledError, OSError) as error:
            if self.client.status == "running" and not future.cancelled():
                return error
            raise self._lost(error) from error
        except Exception as error:  # noqa: BLE001  whatever the function raises is its item's outcome
            return error

    def _lost(self, error: Exception) -> ClusterError:
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
    """A running scheduler's workers, or processes of this machine that end with the block.

    `workers` processes of one thread each, by default one for each of `gpus` (values of CUDA_VISIBLE_DEVICES, dealt
    round robin) or, without any, one a core up to 8; where dask-cuda is installed it places those on GPUs. `dashboard`
    is the address that its page is bound to, "" for none; all else listens on loopback alone. `preload` names modules
    that worker processes have imported from the start, so that one that died is back at once (Linux).

    Raises InvalidInputError without Dask, ClusterError for a scheduler that does not answer, has no worker, or has one
    of another kdcache version.
    """
    try:
        import distributed
    except ImportError as error:
        raise InvalidInputError(INSTALL) from error
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
        page = client.dashboard_link if scheduler or dashboard else ""
        cluster = Cluster(client, address, page, None if scheduler else target)
        cluster.require_version()
        yield cluster


def _require_answer(scheduler: str) -> None:
    """Raises ClusterError where nothing of Dask answers; a client that fails to start leaves threads behind."""
    from distributed.comm.core import connect
    from distributed.security import Security

    async def ask() -> None:
        asked = connect(scheduler, timeout=PATIENCE, **Security().get_connection_args("client"))  # type: ignore[no-untyped-call]
        comm = await asyncio.wait_for(asked, PATIENCE + 1)  # what takes a connection and says nothing
        await comm.close()

    try:
        asyncio.run(ask())
    except (OSError, ValueError) as error:
        why = str(error) or f"it took the connection and said nothing for {PATIENCE:.0f} s"
        advice = "start one with `dask scheduler`, or leave --scheduler out to use this machine alone"
        raise ClusterError(f"no Dask scheduler answers at {scheduler} ({why}); {advice}") from error


class _OtherVersionError(Exception):
    """(worker, its version, the client's), from a worker that joined later."""


def _run(version: str, function: Callable[[I], R], item: I) -> R:
    """What a worker runs: nothing, where its kdcache is another."""
    if (own := importlib.metadata.version("kdcache")) != version:
        from distributed import get_worker

        raise _OtherVersionError(get_worker().address, own, version)
    return function(item)


def _other_version(worker: str, found: str, own: str) -> ClusterError:
    return ClusterError(
        f"worker {worker} has kdcache {found}, this process has {own}; install one version everywhere, restart that "
        "worker, and run the same command again"
    )


def _again(flight: _Flight[Any], error: Exception, retries: int) -> bool:
    """Whether to deal an item once more. Dask gives a task up after four workers died while they had it, which may be
    another task's fault."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        flight.deaths += 1
        return flight.deaths <= DEATHS
    flight.errors += 1
    return flight.errors <= retries
