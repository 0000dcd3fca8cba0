"""Workers are processes that draw views ahead. Whatever ends one of them is an error that names the sample.

A worker hands over each exception, and says beforehand which sample it draws, so that one that is killed names it too.
Workers outlive signals to the whole group of processes, since the main process stops first and needs them until then;
they end when it kills them, and when it ends itself, however that happens.
"""

import ctypes
import multiprocessing
import os
import pickle
import queue
import random
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import worker as torch_worker

from kdcache.base.user_code import exception_text, sample_error, traceback_text
from kdcache.base.user_files import UserFiles
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.errors import InvalidInputError, KdcacheError, SampleError
from kdcache.views.draw import ViewDataset
from kdcache.views.shared_images import SharedImages, received
from kdcache.views.view_stack import Drawn, ViewRequest

AHEAD = 2  # requests a worker that are drawn or wait, beside the one that is handed out
HELD = (signal.SIGINT, signal.SIGTERM)
JOIN_SECONDS = 5.0
BY_SIGNAL: dict[int, str] = {
    signal.SIGKILL: "memory may have run out: use fewer --workers, or --workers 0",
    signal.SIGBUS: "shared memory may have run out: give a container more with --shm-size, or use --workers 0",
}


def draw_requests(
    dataset: ViewDataset, requests: Iterable[ViewRequest], workers: int, start: WorkerStart = DEFAULT_START
) -> Generator[Drawn]:
    """Drawn views in the order of requests, from `workers` processes, or from this one where it is 0. The workers end
    with the iterator. Raises SampleError for whatever the data set or the transform raises, or a worker ends with."""
    if not workers:
        for request in requests:
            yield dataset[request]
        return
    with closing(Workers(dataset, workers, start)) as pool:
        answers: deque[Future[Drawn]] = deque()
        for request in requests:
            answers.append(pool.ask(request))
            if len(answers) > AHEAD * workers:
                yield answers.popleft().result()
        while answers:
            yield answers.popleft().result()


@dataclass(frozen=True)
class _Worker:
    """One worker: its process, the connection to it, and the index of the sample that it draws."""

    process: BaseProcess
    connection: "Connection[Any, Any]"
    index: Any


class Workers:
    """Workers, each with a thread of this process that hands it one request at a time."""

    def __init__(self, dataset: ViewDataset, count: int, start: WorkerStart) -> None:
        self._dataset, self._workers = dataset, list[_Worker]()
        self._requests: queue.SimpleQueue[tuple[ViewRequest, Future[Drawn]] | None] = queue.SimpleQueue()
        payload: Any = dataset if start == "fork" else _pickled(dataset, start)
        self._finalizer = Finalize(self, _kill, args=(self._workers,), exitpriority=100)  # before daemons are joined
        try:
            for number in range(count):
                self._workers.append(_started(payload, number, count, start))
        except BaseException:
            self.close()
            raise
        for worker in self._workers:
            threading.Thread(target=self._attend, args=(worker,), name="kdcache-worker", daemon=True).start()

    def ask(self, request: ViewRequest) -> "Future[Drawn]":
        """The views of a request, once one of the workers has drawn them."""
        answer: Future[Drawn] = Future()
        self._requests.put((request, answer))
        return answer

    def close(self) -> None:
        """End all workers at once; they hold nothing that must be written."""
        self._finalizer()
        for _ in self._workers:
            self._requests.put(None)

    def _attend(self, worker: _Worker) -> None:
        for request, answer in iter(self._requests.get, None):
            try:
                answer.set_result(self._answer(worker, request))
            except BaseException as error:  # noqa: BLE001  the one who waits for the answer raises it
                answer.set_exception(error)

    def _answer(self, worker: _Worker, request: ViewRequest) -> Drawn:
        try:
            worker.connection.send(request)
            answer = worker.connection.recv()
            if isinstance(answer, BaseException):
                raise answer
            drawn: Drawn = received(worker.connection, answer)
        except (EOFError, ConnectionError) as error:
            raise self._death(worker) from error
        return drawn

    def _death(self, worker: _Worker) -> KdcacheError:
        """The error of a worker that ended while it drew."""
        worker.process.join(JOIN_SECONDS)
        code, index = worker.process.exitcode or 0, int(worker.index.value)
        reason, advice = f"with exit code {code}", "look at what the data set and the transform do there"
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            reason, advice = f"by {name}", BY_SIGNAL.get(-code, advice)
        if index < 0:
            return InvalidInputError(f"a worker that draws views ended {reason} before its first sample; {advice}")
        named = self._dataset.named_sample(index)
        return SampleError(f"{named} cannot be drawn: its worker ended {reason}; {advice}, or at that sample", index)


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(JOIN_SECONDS)


def _pickled(dataset: ViewDataset, start: WorkerStart) -> bytes:
    """The data set for a process that has nothing of this one. Raises InvalidInputError where it cannot be pickled."""
    try:
        return pickle.dumps((UserFiles.loaded(), pickle.dumps(dataset)))
    except Exception as error:
        raise InvalidInputError(
            f"the data set or the transform cannot be handed to workers that {start} begins "
            f"({exception_text(error)}): use a function at the head of a file instead of a lambda or an open file; "
            "or give --worker-start fork, or --workers 0"
        ) from error


def _started(payload: Any, number: int, count: int, start: WorkerStart) -> _Worker:
    context: Any = multiprocessing.get_context(start)
    ours, theirs = context.Pipe()
    index = context.RawValue(ctypes.c_longlong, -1)
    process = context.Process(target=_serve, args=(theirs, payload, index, number, count), daemon=True)
    with _held_signals():
        process.start()
    theirs.close()
    return _Worker(process, ours, index)


@contextmanager
def _held_signals() -> Iterator[None]:
    """A process that is started meanwhile gets no signal before it is ready for one."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _serve(connection: "Connection[Any, Any]", payload: Any, index: Any, number: int, count: int) -> None:
    """The life of a worker: draw requests until it is killed, or the main process has ended."""
    outlive_signals()
    images = SharedImages()
    try:
        dataset = _unpickled(payload) if isinstance(payload, bytes) else payload
        dataset.index, dataset.empty_images = index, images.empty
        begin_as_worker(dataset, number, count)
    except BaseException as error:  # noqa: BLE001
        connection.recv()
        connection.send(_portable(error))
        return
    while True:
        request = connection.recv()
        try:
            drawn = dataset[request]
        except BaseException as error:  # noqa: BLE001  also KeyboardInterrupt, which no signal can raise here
            connection.send(_portable(error, dataset, int(index.value)))
        else:
            images.send(connection, drawn)


def outlive_signals() -> None:
    """Let this process live on through SIGINT and SIGTERM, and end with the one that started it."""
    signal.set_wakeup_fd(-1)  # a forked one has the main process's
    for signal_number in HELD:
        signal.signal(signal_number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _unpickled(payload: bytes) -> ViewDataset:
    files, data = pickle.loads(payload)
    files.load()
    dataset: ViewDataset = pickle.loads(data)
    return dataset


def begin_as_worker(dataset: ViewDataset, number: int, count: int) -> None:
    """Be a worker as torch knows it, for data sets that ask `get_worker_info`; its generators are nobody else's."""
    seed = int.from_bytes(os.urandom(4), "little")
    torch.set_num_threads(1)
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)
    torch_worker._worker_info = torch_worker.WorkerInfo(id=number, num_workers=count, seed=seed, dataset=dataset)


def _portable(error: BaseException, dataset: ViewDataset | None = None, index: int = -1) -> BaseException:
    """An error as it can be handed over: its traceback as text, and another kind where its own cannot be pickled."""
    if isinstance(error, KdcacheError):
        return error
    if dataset is not None and index >= 0 and not isinstance(error, Exception):
        return sample_error(error, index, dataset.sample_name(index), "data set")
    error.add_note(traceback_text(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  whatever its own code raises
        return RuntimeError(traceback_text(error))
    return error
