"""A fresh process opens data set and transform anew, as training elsewhere would, and draws samples that it is asked
for: in another order, their last view first, and as a worker of another number."""

import itertools
import os
import pickle
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.user_code import exception_text, place_of, traceback_text
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.labels.encoding import Contents
from kdcache.pipelines.extract.views import open_views
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import DatasetIdentity
from kdcache.store.plan import ViewPlan
from kdcache.store.whole_arrays import make_order
from kdcache.views.draw import ViewDataset
from kdcache.views.texts import texts_of_order
from kdcache.views.workers import begin_as_worker

LOOK = 1.0  # seconds between two looks at whether the process that started it lives
NUMBERS = 16  # of workers that the process takes itself for, in turn


class Channel(Protocol):
    """A way to another process and back."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...


@dataclass(frozen=True)
class Opened:
    """A data set and a view plan as the process found them."""

    identity: DatasetIdentity
    plan: ViewPlan


@dataclass(frozen=True)
class Question:
    """A question for the views of some positions; `contents`: what fingerprints are taken over."""

    positions: IntArray
    views: ViewSpan
    contents: tuple[Contents, ...]


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of one sample: `pixels` [V] by view, and contents by what they are taken over."""

    pixels: tuple[int, ...]
    contents: dict[Contents, int]


def main(path: list[str]) -> None:
    """The life of the process: settings come on stdin, and answers go to what was stdout. It ends with stdin."""
    sys.path[:] = path
    requests, results = open(os.dup(0), "rb"), open(os.dup(1), "wb")  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(Streams(requests, results), open_dataset)


def fork(number: int, parent: int) -> None:
    """The life of an interpreter that forks such a process for whoever connects, as `FreshForks` starts it: `number` of
    the socket's descriptor, id of the process that started it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forked ones leave nothing behind
    listener = socket.socket(fileno=number)
    listener.settimeout(LOOK)
    while os.getppid() == parent:
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            if os.fork() == 0:
                _serve_forked(listener, connection)
            connection.close()


def _serve_forked(listener: socket.socket, connection: socket.socket) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        connection.setblocking(True)
        serve(Connection(connection.detach()), open_dataset)
    finally:
        os._exit(1)


class Streams:
    """A channel of two binary files."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def send(self, message: Any, /) -> None:
        pickle.dump(message, self._outgoing)
        self._outgoing.flush()

    def recv(self) -> Any:
        return pickle.load(self._incoming)


def serve(channel: Channel, open_dataset: Callable[[ExtractSettings], tuple[ViewDataset, Opened]]) -> None:
    """Answer questions until the other side ends, also in the middle of one."""
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, messages), daemon=True).start()
    settings = messages.get()
    try:
        dataset, opened = open_dataset(settings)
    except BaseException as error:  # noqa: BLE001  the user's code may raise anything
        channel.send(_portable(error))
        return
    channel.send(opened)
    for turn in itertools.count():
        channel.send(_answer(dataset, messages.get(), turn))


def _receive(channel: Channel, messages: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            messages.put(channel.recv())
        except (EOFError, OSError):
            os._exit(0)


def open_dataset(settings: ExtractSettings) -> tuple[ViewDataset, Opened]:
    """Open data set and transform as settings name them."""
    data, transform, plan = open_views(settings)
    order, _ = make_order(len(data), settings.order, settings.seed, sequence=data.sequence)
    order = texts_of_order(order, data.sequence)
    return ViewDataset(data.samples, order, plan, transform, (), data.ids), Opened(data.identity(), plan)


def _answer(dataset: ViewDataset, question: Question, turn: int) -> "dict[int, Fingerprints | KdcacheError]":
    begin_as_worker(dataset, turn % NUMBERS, NUMBERS)
    dataset.contents = question.contents
    answers: dict[int, Fingerprints | KdcacheError] = {}
    for position in np.random.permutation(question.positions).tolist():
        try:
            answers[position] = _fingerprints(dataset, position, question.views)
        except BaseException as error:  # noqa: BLE001
            answers[position] = _portable(error)
    return answers


def _fingerprints(dataset: ViewDataset, position: int, views: ViewSpan) -> Fingerprints:
    """The fingerprints of a sample, drawn with its last view first: a cache of the first one would show."""
    pixels, contents = dataset.fingerprints(position, views)
    return Fingerprints(tuple(pixels), contents)


def _portable(error: BaseException) -> KdcacheError:
    if isinstance(error, KdcacheError):
        return error
    place = place_of(error)
    failure = InvalidInputError(exception_text(error) + (f"\n  {place}" if place else ""))
    failure.details = traceback_text(error)
    return failure
