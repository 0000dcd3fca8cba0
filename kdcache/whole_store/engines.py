"""Computations over the blocks of a store run on an engine: in this process, or on the workers of a Dask cluster.

A computation is a pure function of a store's address and of a block, with a small result. Results come in the order of
the items and are added up in that order, so no result depends on the engine or on the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from kdcache.base import open_engine as opening
from kdcache.base.engine import AHEAD, Engine, idle
from kdcache.base.engine_settings import EngineSettings
from kdcache.base.parallel import Threaded
from kdcache.errors import ClusterError, KdcacheError
from kdcache.store.store import Store
from kdcache.whole_store.store_address import StoreAddress, absolute, drop, shared_address

A = TypeVar("A")
B = TypeVar("B")

MODULES = ("kdcache.whole_store.verify", "kdcache.whole_store.recode", "kdcache.whole_store.stats")


def open_engine(settings: EngineSettings) -> AbstractContextManager[Engine]:
    """The engine that the settings name, with workers that have these computations loaded."""
    return opening.open_engine(settings, preload=MODULES)


def in_order(
    engine: Engine,
    function: Callable[[A], B],
    items: Sequence[A],
    *,
    far: bool = False,
    poll: Callable[[], None] = idle,
) -> Iterator[B]:
    """Results in the order of `items`; few are computed ahead of their use. The first error ends the iteration.

    `far`: an item waits for a network and holds little memory, so this process runs several at a time, on threads.
    """
    results: dict[int, B] = {}  # those that came before their turn, by number of the item
    turn = 0
    with ExitStack() as stack:
        threaded = stack.enter_context(closing(Threaded(function))) if far else None
        work: Callable[[tuple[int, A]], Any] = partial(_run_numbered, threaded or function)
        ends = engine.each(work, list(enumerate(items)), ahead=threaded.ahead if threaded else AHEAD, poll=poll)
        stack.enter_context(closing(ends))  # type: ignore[type-var]
        for (number, item), outcome in ends:
            if isinstance(outcome, Exception):
                raise _task_error(item, outcome)
            results[number] = outcome
            while turn in results:
                yield results.pop(turn)
                turn += 1


@contextmanager
def shared_stores(engine: Engine, *stores: Store) -> Iterator[tuple[StoreAddress, ...]]:
    """The addresses of stores that are open here, while one computation lasts. However it ends, workers drop them.

    Raises ClusterError where a worker does not find one of them.
    """
    with ExitStack() as stack:
        addresses = tuple(stack.enter_context(shared_address(store)) for store in stores)
        stack.callback(_drop, engine, *addresses)
        require_stores(engine, *addresses)
        yield addresses


def _drop(engine: Engine, *addresses: StoreAddress) -> None:
    with suppress(OSError, ClusterError):  # a cluster that is lost has dropped them
        engine.everywhere(drop, *addresses)


def _run_numbered(function: Callable[[A], B], numbered_item: tuple[int, A]) -> B:
    return function(numbered_item[1])


def _task_error(item: Any, error: Exception) -> Exception:
    if isinstance(error, KdcacheError):
        return error
    advice = "look at the worker's own output; without --engine dask the same work is done in this process"
    return ClusterError(f"workers could not do {item} ({type(error).__name__}: {error}); {advice}")


def require_stores(engine: Engine, *addresses: StoreAddress) -> None:
    """Raises ClusterError, before work starts, where a worker does not find these stores."""
    for address in addresses:
        expected = _identity(address)
        for worker, answer in sorted(engine.everywhere(_identity, address).items()):
            if answer != expected:
                problem = f"({answer})" if isinstance(answer, Exception) else "as it is here, but another store"
                advice = "put it on a folder that all workers share, or name it by an address that they can read"
                raise ClusterError(f"worker {worker} does not find {address.url} {problem}; {advice}")


def _identity(address: StoreAddress) -> tuple[str, str | None]:
    """Digest of the identity, and content id, of the store at an address. On a worker."""
    store = address.store()
    return store.identity.digest, store.content_id


def runs(items: Sequence[A], length: int) -> list[Sequence[A]]:
    """Items in runs of up to `length`."""
    return [items[start : start + length] for start in range(0, len(items), length)]


def seen_by(settings: EngineSettings, url: str) -> str:
    """A store's address in the form that this engine's workers can open, wherever they run."""
    return url if settings.engine == "local" else absolute(url)
