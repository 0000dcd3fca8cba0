"""Where computations over the blocks of a store run: here, or on a cluster; results come in the order of the items.

A computation is a pure function of a store's address and of a block, with a small result. What is added up is added up
in the order of the items, so that no result depends on the engine or on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kdcache.base.engine_settings import EngineSettings, wants_dask
from kdcache.errors import ClusterError, KdcacheError
from kdcache.places.parallel import JOBS, Pool
from kdcache.whole_store.store_address import Source, absolute

if TYPE_CHECKING:
    from kdcache.base.cluster import Cluster

A = TypeVar("A")
B = TypeVar("B")

Poll = Callable[[], None]

TOGETHER = 16  # blocks that are checked in one task: sha256 of a small one takes less than dealing it


def idle() -> None:
    """Look at nothing."""


class Engine(Protocol):
    """What a computation over blocks asks of the place where it runs."""

    @property
    def together(self) -> int: ...  # how many items of little work are best handed over at once

    def ready(self, *sources: Source) -> None:
        """Raises ClusterError, before work starts, where a worker does not find these stores."""
        ...

    def each(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        """Results in the order of `items`, few ahead of their use. The first error ends it.

        `far`: an item waits for a network and holds little memory. `poll` is called between results, on a cluster
        several times a second, and may raise. Function, items and results are pickled where they travel."""
        ...


class Here:
    """This process: one after another, and on threads what waits for a network."""

    together = 1

    def ready(self, *sources: Source) -> None:
        """They are open."""

    def each(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        found = Pool(JOBS).map(function, items) if far else map(function, items)
        for result in found:
            yield result
            poll()


HERE = Here()


class OnCluster:
    """The workers of a Dask cluster, which all see the stores at the same addresses."""

    together = TOGETHER

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster

    def ready(self, *sources: Source) -> None:
        for source in sources:
            expected = _identity(source)
            for worker, found in sorted(self.cluster.everywhere(_identity, source).items()):
                if found != expected:
                    said = f"({found})" if isinstance(found, Exception) else "as it is here, but another store"
                    advice = "put it on a folder that all workers share, or name it by an address that they can read"
                    raise ClusterError(f"worker {worker} does not find {source.url} {said}; {advice}")

    def each(
        self, function: Callable[[A], B], items: Sequence[A], *, far: bool = False, poll: Poll = idle
    ) -> Iterator[B]:
        ended: dict[int, Any] = {}
        following = 0
        dealt = self.cluster.each(partial(_numbered, function), list(enumerate(items)), poll=poll)
        with closing(dealt) as outcomes:  # type: ignore[type-var]
            for (number, item), outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise _failed(item, outcome)
                ended[number] = outcome
                while following in ended:
                    yield ended.pop(following)
                    following += 1


def _numbered(function: Callable[[A], B], numbered: tuple[int, A]) -> B:
    return function(numbered[1])


def _identity(source: Source) -> tuple[str, str | None]:
    store = source.store()
    return store.identity.digest, store.content_id


def _failed(item: Any, error: Exception) -> Exception:
    if isinstance(error, KdcacheError):
        return error
    advice = "look at the worker's own output; without --engine dask the same work is done in this process"
    return ClusterError(f"workers could not do {item} ({type(error).__name__}: {error}); {advice}")


def runs(items: Sequence[A], length: int) -> list[Sequence[A]]:
    """Items in runs of up to `length`."""
    return [items[start : start + length] for start in range(0, len(items), length)]


ANY_PORT = "127.0.0.1:0"  # of a page that nobody is told of: progress is shown here


@contextmanager
def open_engine(settings: EngineSettings) -> Iterator[Engine]:
    """The engine that the settings name; a cluster of this machine ends with the block.

    Raises InvalidInputError for Dask's settings without Dask, ClusterError for a scheduler that cannot be used.
    """
    if not wants_dask(settings):
        yield HERE
        return
    from kdcache.base.cluster import open_cluster

    modules = ("kdcache.whole_store.verify", "kdcache.whole_store.recode", "kdcache.whole_store.stats")
    with open_cluster(
        scheduler=settings.scheduler, workers=settings.dask_workers, dashboard=ANY_PORT, preload=modules
    ) as cluster:
        yield OnCluster(cluster)


def seen_by(settings: EngineSettings, url: str) -> str:
    """A store's address as this engine's workers, who may stand elsewhere, know it."""
    return url if settings.engine == "local" else absolute(url)
