"""Students are trained in this process or in several, one thread each: bits do not depend on how many."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

import torch

from kdcache.base.progress import StopRequest
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.shared_settings import unequal_settings
from kdcache.views.draw import one_thread
from kdcache.views.workers import outlive_signals

ADVICE = "run the same command again to go on"
TOGETHER = 16  # students that share a stream
Train = Callable[..., Sequence[Any]]
"""`train_together`: it trains a group of settings and gives an outcome of each, with its `error`."""


def groups_of(settings: Sequence[TrainSettings], jobs: int) -> list[list[TrainSettings]]:
    """Groups that share a stream, small enough that every process has one."""
    largest = max(1, min(TOGETHER, -(-len(settings) // jobs)))
    groups: list[list[TrainSettings]] = []
    for run in settings:
        for group in groups:
            if len(group) < largest and not unequal_settings([group[0], run]):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


@dataclass(frozen=True)
class Trained:
    """A group that was trained: how many runs, and the CPU seconds that another process spent on them."""

    runs: int
    cpu_seconds: float = 0.0


def train_all(train: Train, groups: Sequence[list[TrainSettings]], jobs: int, stop: StopRequest) -> Iterator[Trained]:
    """Train groups in so many processes, one thread each, and yield each that ends. With one job it is this process:
    bits do not depend on it."""
    if jobs == 1 or len(groups) < 2:
        for group in groups:
            stop.check(ADVICE)
            with one_thread():
                _train_group(train, group, stop)
            yield Trained(len(group))
        return
    context = get_context("forkserver")  # whose server has imported torch already, see `shared_server`
    stopping = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(groups)), context, initializer=_begin, initargs=(stopping,))
    try:
        pending = {pool.submit(_train_group, train, group) for group in groups}
        while pending:
            stop.check(ADVICE)
            ended, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ended)
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


_stop = StopRequest()  # of a worker


def _begin(stopping: Event) -> None:
    """Begin a worker: it has one thread for torch, and stops when the study's process says so or ends."""

    def listen() -> None:
        stopping.wait()
        _stop.requested = True

    outlive_signals()
    threading.Thread(target=listen, daemon=True).start()
    torch.set_num_threads(1)


def _train_group(train: Train, group: list[TrainSettings], stop: StopRequest | None = None) -> Trained:
    start = time.process_time()
    for outcome in train(group, stop=stop or _stop):
        if outcome.error is not None:
            raise outcome.error
    return Trained(len(group), time.process_time() - start)
