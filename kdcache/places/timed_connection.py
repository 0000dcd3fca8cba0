"""A connection to a web server is bounded by a clock: a whole answer must arrive by one moment.

The timeout of a socket is no such bound, since it begins anew with each byte that drips in.
"""

import functools
import io
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from http.client import HTTPResponse


class Clock:
    """The moment by which an answer must have arrived."""

    until = 0.0

    def restart(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until then. Raises TimeoutError where none are left."""
        if (seconds := self.until - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return seconds


class Connection:
    """A connection of http.client whose answers go by a clock. `process` is the one that opened it."""

    def __init__(self, scheme: str, host: str, port: int | None, timeout: float) -> None:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if scheme == "https" else HTTPConnection
        self.process, self.clock = os.getpid(), Clock()
        self.http = kind(host, port or kind.default_port, timeout=timeout)
        cast(Any, self.http).response_class = functools.partial(_timed_response, self.clock)
        cast(Any, self.http)._create_connection = functools.partial(_connect, self.clock)

    @property
    def waits(self) -> bool:
        """True where this process may use it again: a socket with something to read was closed, or speaks unasked."""
        if self.process != os.getpid():
            return False
        poll = select.poll()
        poll.register(self.http.sock, select.POLLIN)
        return not poll.poll(0)

    def __del__(self) -> None:
        self.http.close()


def _connect(clock: Clock, address: tuple[str, int], *_options: Any) -> socket.socket:
    """A connection to the first of a host's addresses that answers. Each has its share of the time that is left; a
    TLS handshake has what is left then."""
    infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, target) in enumerate(infos):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(clock.remaining() / (len(infos) - number))
            connection.connect(target)
            connection.settimeout(clock.remaining())
            return connection
        except OSError:
            connection.close()
            if number + 1 == len(infos):
                raise
    raise OSError(f"{address[0]} has no address")


class _TimedReads(io.RawIOBase):
    """Reads from a socket; each may take the time that the clock leaves."""

    def __init__(self, sock: Any, clock: Clock) -> None:
        self._sock, self._raw, self._clock = sock, sock.makefile("rb", buffering=0), clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._clock.remaining())
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """The part of a socket that http.client uses once the request is sent."""

    def __init__(self, sock: Any, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReads(self._sock, self._clock), 2**16)


def _timed_response(clock: Clock, sock: Any, *arguments: Any, **options: Any) -> "HTTPResponse":
    from http.client import HTTPResponse

    return HTTPResponse(cast(Any, _TimedSocket(sock, clock)), *arguments, **options)
