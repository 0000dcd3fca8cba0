"""How long work reports itself: a plain callback, and a request to stop that is looked at between steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kdcache.errors import InterruptedRunError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


class StopRequest:
    """Set by the first SIGTERM or Ctrl-C; a second one acts at once, as if nothing had been installed."""

    def __init__(self) -> None:
        self.requested = False

    def check(self, advice: str) -> None:
        """Raises InterruptedRunError once a stop has been asked for."""
        if self.requested:
            raise InterruptedRunError(f"stopped as asked; {advice}")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While open, SIGTERM and SIGINT ask for a stop instead of killing the process. For the main thread only."""
    stop = StopRequest()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
