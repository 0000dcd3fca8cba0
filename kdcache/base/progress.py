"""Progress of long work: it reports through a plain callback, and looks at a request to stop between its steps."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from kdcache.errors import InterruptedRunError

PATIENCE = 8.0  # seconds that a process has to stop by itself
LAST_WORDS = 1.0  # seconds for a message to a terminal that may be blocked

Progress = Callable[[str, int, int], None]
"""Called with a label of the work, how much of it is done, and how much there is; 0 of 0 where nothing is counted."""


class Activity(str):
    """A label of work that is counted in a unit, such as `Activity("training", "steps")`; bytes are shown as MB.
    `under_way`: how many more are begun."""

    unit: str
    under_way: int

    def __new__(cls, label: str, unit: str = "", *, under_way: int = 0) -> Self:
        activity = super().__new__(cls, label)
        activity.unit, activity.under_way = unit, under_way
        return activity


def silent(label: str, done: int, total: int) -> None:
    """Report nothing."""


class StopRequest:
    """A request to stop, set by the first SIGTERM or Ctrl-C. A second one acts at once, by the former handler."""

    def __init__(self) -> None:
        self.requested = False

    def check(self, advice: str) -> None:
        """Raises InterruptedRunError once a stop has been asked for."""
        if self.requested:
            raise InterruptedRunError(f"stopped as asked; {advice}")


@contextmanager
def stop_on_signals(overdue: Callable[[], None] = lambda: None) -> Iterator[StopRequest]:
    """While open, SIGTERM and SIGINT ask for a stop instead of killing the process. For the main thread only.

    Where the process has not stopped by itself some seconds later (a forward that hangs, a write that is blocked), a
    thread calls `overdue` and ends it with exit code 75: what is done is safe at any moment.
    """
    stop, numbers = StopRequest(), (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, handlers[signal.Signals(number)])

    with _watchdog(numbers, overdue):
        for number in handlers:
            signal.signal(number, ask)
        try:
            yield stop
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _watchdog(numbers: tuple[int, ...], overdue: Callable[[], None]) -> Iterator[None]:
    """While open, a thread waits for one of these signals, and ends the process some seconds after it. The signal
    itself tells the thread: where the main thread hangs in C, no handler is called."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        while data := theirs.recv(64):
            if set(data) & set(numbers):
                break
        if data and not done.wait(PATIENCE):
            last_words = threading.Thread(target=overdue, daemon=True)
            last_words.start()
            last_words.join(LAST_WORDS)
            os._exit(InterruptedRunError.exit_code)

    former = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="kdcache-watchdog", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(former, warn_on_full_buffer=False)
        ours.shutdown(socket.SHUT_RDWR)  # a worker may hold it too, so that closing it alone would not be seen
        watcher.join()
        ours.close()
        theirs.close()
