"""An engine runs one function on many items: in this process, in one of torchrun's processes, or on Dask's workers.

`Engine` is the protocol, which is all that callers know; `LocalEngine` is here, the other two kinds are
`rank_engine.RankEngine` and `cluster.Cluster`, and `open_engine` opens what settings name. Items are blocks of a store,
or points of a sweep.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

AHEAD = 2  # items under way at a time, those of each worker
RETRIES = 2  # attempts after the first one


def idle() -> None:
    """Look at nothing."""


class Engine(Protocol):
    """An engine runs one function on many items."""

    @property
    def items_per_task(self) -> int: ...  # callers group items of little work into tasks of this many
    @property
    def workers(self) -> int: ...  # items of much work that can be under way at a time, 1 at least

    def each(
        self,
        function: Callable[[I], R | Future[R]],
        items: Iterable[I],
        *,
        ahead: int = AHEAD,
        retries: int = RETRIES,
        poll: Callable[[], None] = idle,
    ) -> Iterator[tuple[I, R | Exception]]:
        """Each item with `function(item)`, as they end, at most `ahead` a worker under way.

        Elsewhere, `function`, items and results are pickled, an item may be run more than once, and one that fails at
        1 + `retries` attempts comes with its error. In this process nothing is pickled and an error is raised at once;
        a function may return a future, and its item is under way until that ends. A function with a method `expect`
        is told its items before the first one. `poll` is called between items, on a cluster several times a second,
        and may raise.
        """
        ...

    def everywhere(self, function: Callable[..., R], *arguments: Any) -> dict[str, R | Exception]:
        """Worker's address -> result or error of `function(*arguments)`, for all workers that are not this process."""
        ...


class LocalEngine:
    """This process, item by item."""

    items_per_task, workers = 1, 1

    def each(
        self,
        function: Callable[[I], R | Future[R]],
        items: Iterable[I],
        *,
        ahead: int = AHEAD,
        retries: int = RETRIES,
        poll: Callable[[], None] = idle,
    ) -> Iterator[tuple[I, R | Exception]]:
        if (expect := getattr(function, "expect", None)) is not None:
            items = list(items)
            expect(items)
        flights: deque[tuple[I, Future[R]]] = deque()
        for item in items:
            poll()
            outcome = function(item)
            if isinstance(outcome, Future):
                flights.append((item, outcome))
            else:
                yield item, outcome
            while flights and (len(flights) > ahead or flights[0][1].done()):  # raises at once what went wrong
                first, future = flights.popleft()
                yield first, future.result()
        for first, future in flights:
            yield first, future.result()

    def everywhere(self, function: Callable[..., R], *arguments: Any) -> dict[str, R | Exception]:
        return {}


LOCAL = LocalEngine()
