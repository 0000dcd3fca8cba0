"""Progress of long work: it reports through a plain callback, and looks at a request to stop between its steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kdcache.errors import InterruptedRunError

Progress = Callable[[str, int, int], None]
"""Called with a label of the work, how much of it is done, and how much there is."""


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
def stop_on_signals() -> Iterator[StopRequest]:
    """While open, SIGTERM and SIGINT ask for a stop instead of killing the process. For the main thread only."""
    stop = StopRequest()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, handlers[signal.Signals(number)])

    for number in handlers:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
