"""Many answers are awaited at once: a pool of threads for the requests, and a budget for the bytes in flight."""

import copy
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")

JOBS = 16  # requests at a time


class Pool:
    """A pool keeps its threads, since each keeps its connection. They are made when first needed, never taken over from
    a parent process."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._process, self._threads = 0, ThreadPoolExecutor(1)

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Results in the order of `items`, some computed ahead of their use. The first error ends it."""
        futures: deque[Future[B]] = deque()
        try:
            for item in items:
                futures.append(self._pool().submit(function, item))
                if len(futures) >= 4 * self.jobs:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()

    def _pool(self) -> ThreadPoolExecutor:
        if self._process != os.getpid():
            self._process, self._threads = os.getpid(), ThreadPoolExecutor(self.jobs, thread_name_prefix="kdcache")
        return self._threads


def many(function: Callable[[A], B], items: Sequence[A], *, far: bool) -> Iterator[B]:
    """Results in the order of `items`: one by one, or some ahead where each waits for a `far` place."""
    return Pool(JOBS).map(function, items) if far else map(function, items)


class Threaded(Generic[A, B]):
    """A function whose calls run on threads and return futures. What is pickled of it is the plain function."""

    def __init__(self, function: Callable[[A], B], jobs: int = JOBS) -> None:
        self.function, self.ahead = function, 4 * jobs
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="kdcache")

    def __call__(self, item: A) -> Future[B]:
        return self._threads.submit(self.function, item)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (self.function,)

    def close(self) -> None:
        """Take back the calls that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Budget:
    """A budget bounds the bytes that are held at once: `take` waits for room. A size beyond the limit gets in alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size

    def give(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()
