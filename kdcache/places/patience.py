"""Patience with a server is bounded in seconds and bytes: one that drips is given up, and a slow line gets its file.

The length that a server announces, or the largest one that is allowed, bounds nothing: a drip would have as long as a
large file. A body goes by the bytes that came instead.
"""

import random
import threading
from dataclasses import dataclass

_jitter = random.Random()  # of its own: the global generator belongs to the views


@dataclass(frozen=True)
class Patience:
    """Patience bounds the time that a server may take.

    timeout: seconds until an answer has begun, its headers whole. window, slowest: in any `window` seconds that a body
    is waited for, a server sends at least `slowest` bytes a second over all its connections together. share: one
    connection brings at least one part in `share` of that. tries: how often it is asked in all. pause: seconds before
    the second try, doubled each time up to longest_pause. budget: seconds after the first failure from which no further
    try begins.
    """

    timeout: float = 8.0
    window: float = 8.0
    slowest: float = 8_192.0
    share: int = 8
    tries: int = 5
    pause: float = 0.25
    longest_pause: float = 5.0
    budget: float = 12.0

    @property
    def piece(self) -> int:
        """Bytes that one connection brings in a window at least."""
        return max(1, int(self.slowest * self.window / self.share))


def jittered(pause: float, patience: Patience, server_wait: float = 0.0) -> float:
    """Seconds to wait: at random half the pause or more, or the wait that a server asks for where that is longer; never
    more than the longest pause."""
    return min(max(pause * _jitter.uniform(0.5, 1.0), server_wait), patience.longest_pause)


class TryAgainError(Exception):
    """A failure that may pass: a connection that broke, or an answer that says so.

    `wait` holds the seconds that the server asks for.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Line:
    """The bytes that came over all connections to one server: they share what a slow line carries."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.count += count


class Pace:
    """The pace of one body: its bytes, and those of its line, over the seconds in which it was waited for."""

    def __init__(self, line: Line, patience: Patience) -> None:
        self._line, self._patience = line, patience
        self._begin()

    def note(self, count: int, seconds: float) -> None:
        """Count bytes that took some seconds to come. Raises TryAgainError for a body that drips."""
        patience = self._patience
        self._line.add(count)
        self._count += count
        self._seconds += seconds
        if self._seconds < patience.window:
            return
        due = patience.slowest * self._seconds
        if self._count < due / patience.share or self._line.count - self._start < due:
            raise self.too_slow()
        self._begin()

    def too_slow(self) -> TryAgainError:
        """The failure of a body that is given up."""
        patience = self._patience
        return TryAgainError(f"stalled, or sent less than {patience.slowest:,.0f} bytes/s for {patience.window:g} s")

    def _begin(self) -> None:
        self._count, self._seconds, self._start = 0, 0.0, self._line.count
