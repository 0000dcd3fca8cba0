"""Patience with a server is bounded in tries, seconds and bytes: one that drips is given up, and a slow line gets its
file.

The length that a server announces, or the largest one that is allowed, bounds nothing: a drip would have as long as a
large file. A body goes by the bytes that came instead.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

T = TypeVar("T")

_jitter = random.Random()  # of its own: the global generator belongs to the views


class TryAgainError(Exception):
    """A failure of one try: it may pass, unless it is `final`. `wait` holds the seconds that a server asks for."""

    def __init__(self, reason: str, wait: float = 0.0, *, final: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.final = wait, final


@dataclass(frozen=True)
class Patience:
    """Patience bounds the time that a server may take. It is the one policy by which anything is tried again: for web
    servers and the hub's files as it stands, for buckets and pushes to the hub with more time to send.

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

    def outlast(self, call: Callable[[], T], refusal: Callable[[TryAgainError, str], Exception]) -> T:
        """The result of a call, which is made again while it raises a TryAgainError that is not final.

        Raises `refusal(failure, tries)` of the last failure, where `tries` reads "in 3 tries over 2.1 s".
        """
        failure_time = 0.0
        for number in count(1):
            try:
                return call()
            except TryAgainError as error:
                failure_time = failure_time or time.monotonic()  # a large file may take long before it breaks off
                seconds, wait = time.monotonic() - failure_time, self._wait(number, error.wait)
                if error.final or number == self.tries or seconds + wait > self.budget:
                    raise refusal(error, f"in {number} tries over {seconds:.1f} s") from error.__cause__
            time.sleep(wait)
        raise AssertionError

    def _wait(self, number: int, server_wait: float) -> float:
        """Seconds after a try: at random half the pause or more, or the wait that a server asks for where that is
        longer; never more than the longest pause."""
        pause = self.pause * 2.0 ** (number - 1) * _jitter.uniform(0.5, 1.0)
        return min(max(pause, server_wait), self.longest_pause)

    @property
    def piece(self) -> int:
        """Bytes that one connection brings in a window at least."""
        return max(1, int(self.slowest * self.window / self.share))


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
