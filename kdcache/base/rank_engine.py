"""The processes of torchrun share items: each takes those of its rank, and the first one those that others leave.

Nothing is sent between them: a place that all see tells which items are done, as the commits of a store tell of blocks.
So another number of processes may go on with it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kdcache.base.engine import AHEAD, LOCAL, RETRIES, idle
from kdcache.base.launch import Launch
from kdcache.base.progress import Activity, Progress, silent

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

PATIENCE = 600.0  # seconds without anything done by the others, after which their items are taken over
TIMES_OWN = 10.0  # or so many times the seconds that an item took in this process, where that is longer
ASKING_SHARE = 0.05  # of the waiting that may go into asking for what is done
PAUSE = 0.2  # seconds between two questions, at least
WAITING = Activity("waiting for the other processes", "blocks")
TAKING_OVER = Activity("taking over what the other processes left", "blocks")


@dataclass
class RankEngine:
    """One of several processes of torchrun. Items are numbers below `total`; `unfinished` returns those of some numbers
    that nobody has done yet."""

    launch: Launch
    total: int
    unfinished: Callable[[Sequence[int]], Sequence[int]]
    progress: Progress = silent
    items_per_task: int = 1
    workers: int = 1
    _taken: set[int] = field(default_factory=set)

    def each(
        self,
        function: Callable[[I], R | Future[R]],
        items: Iterable[I],
        *,
        ahead: int = AHEAD,
        retries: int = RETRIES,
        poll: Callable[[], None] = idle,
    ) -> Iterator[tuple[I, R | Exception]]:
        """This process's share of the items. The first process waits for the others then, and runs what they leave."""
        items, start_time = list(items), time.monotonic()
        share = self.share(items)
        yield from LOCAL.each(function, share, ahead=ahead, poll=poll)
        if self.launch.rank == 0:
            seconds_an_item = (time.monotonic() - start_time) / max(len(share), 1)
            if rest := self._await_others(items, max(PATIENCE, TIMES_OWN * seconds_an_item), poll):
                self._taken.update(rest)
                yield from LOCAL.each(function, rest, ahead=ahead, poll=poll)

    def everywhere(self, function: Callable[..., R], *arguments: Any) -> dict[str, R | Exception]:
        return {}

    def share(self, items: Sequence[I]) -> list[I]:
        """The items that this process takes: number mod number of processes is its rank, whatever is done already; and
        those that it has taken over."""
        return [item for item in items if self._is_own(item)]

    def _is_own(self, item: Any) -> bool:
        return item % self.launch.world_size == self.launch.rank or item in self._taken

    def _await_others(self, items: Sequence[Any], patience: float, poll: Callable[[], None]) -> list[Any]:
        """Wait until the others have done their items, and return none; or return those that are left once none was
        done for longer than a process could need for one."""
        missing = set(items)
        last_change, last_count = time.monotonic(), -1
        while True:
            asking_start = time.monotonic()
            missing &= set(self.unfinished(sorted(missing)))
            asking_end, count = time.monotonic(), self.total - len(missing)
            rest = [item for item in items if item in missing and not self._is_own(item)]
            if not rest:
                return []
            if count != last_count:
                last_change, last_count = asking_end, count
                self.progress(WAITING, count, self.total)
            elif asking_end - last_change > patience:
                self.progress(TAKING_OVER, count, self.total)
                return rest
            poll()
            time.sleep(max(PAUSE, (asking_end - asking_start) / ASKING_SHARE))
