"""Engines run computations over the blocks of a store: in this process, or on the workers of a Dask cluster.

A computation is a pure function of a store's address and of a block, with a small result. Results come in the order of
the items and are added up in that order, so no result depends on the engine or on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kdcache.base.engine_settings import EngineSettings, wants_dask
from kdcache.errors import ClusterError, KdcacheError
from kdcache.places.parallel import JOBS, Pool
from kdcache.whole_store.store_address import StoreAddress, absolute

if TYPE_CHECKING:
    from kdcache.base.cluster import Cluster

A = TypeVar("A")
B = TypeVar("B")

Poll = Callable[[], None]

BLOCKS_A_TASK = 16  # blocks that are checked in one task: sha256 of a small one takes less than dealing it


def idle() -> None:
    """Look at nothing."""


class Engine(Protocol):
    """An engine runs one function over many items. `LocalEngine` and `DaskEngine` are the two kinds."""

    @property
    def items_per_task(self) -> int: ...  # callers group items of little work into tasks of this many

    def require_stores(self, *addresses: StoreAddress) -> None:
        """Raises ClusterError, before work starts, where a worker does not find these stores."""
        ...

    def map(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        """Results in the order of `items`; few are computed ahead of their use. The first error ends the iteration.

        `far`: an item waits for a network and holds little memory. `poll` is called between results, on a cluster
        several times a second, and may raise. Function, items and results are pickled where they travel."""
        ...


class LocalEngine:
    """This process: one item after another, and on threads where items wait for a network."""

    items_per_task = 1

    def require_stores(self, *addresses: StoreAddress) -> None:
        """Nothing to check: this process has opened the stores."""

    def map(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        results = Pool(JOBS).map(function, items) if far else map(function, items)
        for result in results:
            yield result
            poll()


LOCAL = LocalEngine()


class DaskEngine:
    """The workers of a Dask cluster, which all see the stores at the same addresses."""

    items_per_task = BLOCKS_A_TASK

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster

    def require_stores(self, *addresses: StoreAddress) -> None:
        for address in addresses:
            expected = _identity(address)
            for worker, answer in sorted(self.cluster.everywhere(_identity, address).items()):
                if answer != expected:
                    problem = f"({answer})" if isinstance(answer, Exception) else "as it is here, but another store"
                    advice = "put it on a folder that all workers share, or name it by an address that they can read"
                    raise ClusterError(f"worker {worker} does not find {address.url} {problem}; {advice}")

    def map(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        results: dict[int, Any] = {}  # those that came before their turn, by number of the item
        turn = 0
        ends = self.cluster.each(partial(_run_numbered, function), list(enumerate(items)), poll=poll)
        with closing(ends) as outcomes:  # type: ignore[type-var]
            for (number, item), outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise _task_error(item, outcome)
                results[number] = outcome
                while turn in results:
                    yield results.pop(turn)
                    turn += 1


def _run_numbered(function: Callable[[A], B], numbered_item: tuple[int, A]) -> B:
    return function(numbered_item[1])


def _identity(address: StoreAddress) -> tuple[str, str | None]:
    """Digest of the identity, and content id, of the store at an address. On a worker."""
    store = address.store()
    return store.identity.digest, store.content_id


def _task_error(item: Any, error: Exception) -> Exception:
    if isinstance(error, KdcacheError):
        return error
    advice = "look at the worker's own output; without --engine dask the same work is done in this process"
    return ClusterError(f"workers could not do {item} ({type(error).__name__}: {error}); {advice}")


def runs(items: Sequence[A], length: int) -> list[Sequence[A]]:
    """Items in runs of up to `length`."""
    return [items[start : start + length] for start in range(0, len(items), length)]


ANY_PORT = "127.0.0.1:0"  # of Dask's dashboard, which no user is pointed to: progress is shown by this process


@contextmanager
def open_engine(settings: EngineSettings) -> Iterator[Engine]:
    """The engine that the settings name; a cluster of this machine ends with the block.

    Raises InvalidInputError for Dask's settings without Dask, ClusterError for a scheduler that cannot be used.
    """
    if not wants_dask(settings):
        yield LOCAL
        return
    from kdcache.base.cluster import open_cluster

    modules = ("kdcache.whole_store.verify", "kdcache.whole_store.recode", "kdcache.whole_store.stats")
    with open_cluster(
        scheduler=settings.scheduler, workers=settings.dask_workers, dashboard=ANY_PORT, preload=modules
    ) as cluster:
        yield DaskEngine(cluster)


def seen_by(settings: EngineSettings, url: str) -> str:
    """A store's address in the form that this engine's workers can open, wherever they run."""
    return url if settings.engine == "local" else absolute(url)
