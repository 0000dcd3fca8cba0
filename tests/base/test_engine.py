"""engines: this process and the processes of torchrun; those of Dask are in tests/processes/test_cluster.py."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from kdcache.base import rank_engine
from kdcache.base.engine import LOCAL, Engine
from kdcache.base.engine_settings import EngineSettings
from kdcache.base.launch import Launch
from kdcache.base.open_engine import open_engine
from kdcache.base.parallel import Threaded
from kdcache.base.progress import StopRequest
from kdcache.base.rank_engine import RankEngine
from kdcache.errors import InterruptedRunError, InvalidInputError


def test_this_process_runs_item_by_item_and_pickles_nothing() -> None:
    begun: list[int] = []

    def squared(item: int) -> int:
        begun.append(item)
        return item * item

    ends = LOCAL.each(squared, iter([3, 1, 2]))
    assert next(ends) == (3, 9)
    assert begun == [3]
    assert list(ends) == [(1, 1), (2, 4)]
    assert LOCAL.everywhere(squared, 1) == {}
    with open_engine(EngineSettings()) as engine:
        assert engine is LOCAL


def test_an_error_of_this_process_is_raised_at_once() -> None:
    begun: list[int] = []

    def refused(item: int) -> int:
        begun.append(item)
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(LOCAL.each(refused, range(3), retries=2))
    assert begun == [0]


def test_a_stop_is_heard_between_items() -> None:
    stop = StopRequest()
    ends = LOCAL.each(lambda item: item, range(9), poll=lambda: stop.check("go on"))
    assert next(ends) == (0, 0)
    stop.requested = True
    with pytest.raises(InterruptedRunError, match="go on"):
        next(ends)


def test_futures_are_under_way_in_a_bounded_number() -> None:
    """The function begins as many items as may wait, and no more until the first one has ended."""
    gate, begun = threading.Event(), list[int]()
    with ThreadPoolExecutor(1) as pool:

        def begin(item: int) -> Future[int]:
            begun.append(item)
            if len(begun) == 4:
                gate.set()  # three wait, the fourth lets them end
            return pool.submit(lambda: item if gate.wait(30) else -1)

        assert list(LOCAL.each(begin, range(9), ahead=3)) == [(item, item) for item in range(9)]


def test_a_function_may_be_told_its_items_beforehand() -> None:
    class Doubled:
        expected: Sequence[int] = ()

        def expect(self, items: Sequence[int]) -> None:
            self.expected = items

        def __call__(self, item: int) -> int:
            return 2 * self.expected[item]

    assert list(LOCAL.each(Doubled(), iter(range(3)))) == [(0, 0), (1, 2), (2, 4)]


def test_a_threaded_function_gives_back_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()

    def slow(item: int) -> int:
        begun.set()
        gate.wait(30)
        return item

    with closing(Threaded(slow, jobs=1)) as threaded:
        futures = [threaded(item) for item in range(3)]
        assert begun.wait(30)
    gate.set()
    assert futures[0].result() == 0
    assert [future.cancelled() for future in futures] == [False, True, True]


class Peers:
    """The other processes: each question finds one more of their items done, until they stop."""

    def __init__(self, items: Iterator[int]) -> None:
        self.done, self._items = set[int](), items

    def unfinished(self, items: Sequence[int]) -> list[int]:
        self.done |= {next(self._items, -1)}
        return [item for item in items if item not in self.done]


def ranked(rank: int, peers: Peers, progress: Callable[[str, int, int], None]) -> Engine:
    return RankEngine(Launch(rank=rank, world_size=3), 10, peers.unfinished, progress)


def test_the_first_rank_awaits_the_others_and_runs_what_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_engine, "PAUSE", 0.0)
    monkeypatch.setattr(rank_engine, "PATIENCE", 0.05)
    monkeypatch.setattr(rank_engine, "TIMES_OWN", 0.0)
    shown, own = list[str](), list[int]()
    peers = Peers(iter([4, 5, 7]))

    def run(item: int) -> int:
        own.append(item)
        peers.done.add(item)
        return item

    items = [0, 1, 3, 4, 5, 6, 7, 8]  # 2 and 9 were done before
    engine = ranked(0, peers, lambda label, done, total: shown.append(f"{label} {done} of {total}"))
    assert [item for item, _ in engine.each(run, items)] == own == [0, 3, 6, 1, 8]
    assert shown[:2] == ["waiting for the other processes 6 of 10", "waiting for the other processes 7 of 10"]
    assert shown[-1] == "taking over what the other processes left 8 of 10"
    own.clear()
    assert [item for item, _ in engine.each(run, [3, 8])] == [3, 8]  # those taken over are its own now


def test_other_ranks_do_their_share_and_wait_for_nobody() -> None:
    engine = ranked(2, Peers(iter(())), lambda label, done, total: None)
    assert [item for item, _ in engine.each(lambda item: item, range(10))] == [2, 5, 8]


def test_settings_of_dask_need_it() -> None:
    with pytest.raises(InvalidInputError, match="without --engine dask"), open_engine(EngineSettings(dask_workers=2)):
        pass
