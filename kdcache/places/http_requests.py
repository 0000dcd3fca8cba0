"""One web server, asked for files: every answer is bounded in time and bytes, and no redirect is followed.

The standard library's http.client, since a store's server is not trusted: obstore 0.12 follows redirects to any host,
and takes an error's body into memory whole, so that one which announces a terabyte ends the process.
"""

import functools
import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from kdcache.errors import InvalidInputError, StoreError

if TYPE_CHECKING:
    from http.client import HTTPResponse

T = TypeVar("T")
SCHEMES = ("http", "https")
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAFE = "/%:@!$&'()*+,;=~"
PIECE = 2**20
DRAINED = 2**14  # bytes of a body that nobody wants, for which a connection is kept
SHOWN = 120  # characters of a server's words that a message shows
_jitter = random.Random()  # of its own: the global generator belongs to the views


@dataclass(frozen=True)
class Patience:
    """How long a server may take: seconds until an answer has begun, bytes a second from then on; how often it is asked
    again, after which first pause (doubled each time), and the seconds after which no further try begins."""

    timeout: float = 8.0
    slowest: float = 32_768.0
    tries: int = 5
    pause: float = 0.25
    longest_pause: float = 5.0
    budget: float = 20.0


PATIENCE = Patience()


@dataclass(frozen=True)
class Extra:
    """What else a request carries, and no message shows."""

    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)


def jittered(pause: float, patience: Patience, wanted: float = 0.0) -> float:
    """Seconds to wait: some of the pause, at random, or what a server asks for; never more than the longest."""
    return min(max(pause * _jitter.uniform(0.5, 1.0), wanted), patience.longest_pause)


class TryAgainError(Exception):
    """What may pass: a connection that broke, or an answer that says so. `wait` is what the server asks for."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class TooLongError(Exception):
    """A body has more bytes than were agreed."""


def shown(text: str) -> str:
    """A server's words for a message: short, and nothing that a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text[:SHOWN])


def split_url(url: str) -> SplitResult:
    """A store's URL in parts. Raises InvalidInputError, without what may be secret, for what kdcache does not read."""
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise InvalidInputError(
            f"kdcache reads no {scheme}: addresses; it reads http:// and https:// addresses and plain paths"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(
            f"the store's {scheme}:// address has no valid host and port; write {scheme}://host[:port]/path"
        ) from error
    if "@" in parts.netloc:
        raise InvalidInputError(
            f"a {scheme}:// address with a user or password was given for the host {parts.hostname}; kdcache neither "
            "sends nor keeps them: use an address that needs none, or copy the store to a folder"
        )
    if parts.query or parts.fragment:
        raise InvalidInputError(
            f"{scheme}://{parts.netloc}{parts.path} was given with ? or #; a store is many files beneath one address: "
            "name it without them, or copy the store to a folder"
        )
    if not parts.hostname or port == 0:
        raise InvalidInputError(f"{shown(url)} names no host and port; write {scheme}://host[:port]/path")
    return parts


class Clock:
    """The moment by which an answer must have arrived."""

    until = 0.0

    def restart(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def left(self) -> float:
        if (left := self.until - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return left


class _TimedReads(io.RawIOBase):
    """A socket's bytes, by the clock: the socket's own timeout begins anew with each byte that drips in."""

    def __init__(self, sock: Any, clock: Clock) -> None:
        self._sock, self._raw, self._clock = sock, sock.makefile("rb", buffering=0), clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._clock.left())
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """What http.client asks of a socket once the request is sent."""

    def __init__(self, sock: Any, clock: Clock) -> None:
        self._sock, self._clock = sock, clock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReads(self._sock, self._clock), 2**16)


def _timed_response(clock: Clock, sock: Any, *given: Any, **more: Any) -> "HTTPResponse":
    from http.client import HTTPResponse

    return HTTPResponse(cast(Any, _TimedSocket(sock, clock)), *given, **more)


class Reply:
    """One answer: its status and headers, and its body for whoever knows how long it may be."""

    def __init__(self, url: str, response: "HTTPResponse", clock: Clock, patience: Patience) -> None:
        self.url = url
        self.status = response.status
        self.said = f"{response.status} {shown(response.reason or '')}".strip()
        self.length = response.length  # None where none is announced
        self._response, self._clock, self._patience = response, clock, patience

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    @property
    def location(self) -> SplitResult | None:
        """Where a redirect leads, whole: what it asks for may be secret. None for other answers."""
        try:
            return urlsplit(urljoin(self.url, self.header("Location"))) if self.status in REDIRECTS else None
        except ValueError:
            return urlsplit("nowhere:")

    @property
    def redirect(self) -> str:
        """Where a redirect leads, without what may be secret; empty for other answers."""
        parts = self.location
        return "" if parts is None else shown(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")

    def pieces(self, limit: int) -> Iterator[bytes]:
        """The body. Raises TooLongError beyond `limit` bytes, TryAgainError where it ends too early."""
        announced, seen = self.length, 0
        if announced is not None and announced > limit:
            raise TooLongError(f"announces {announced} bytes")
        self._clock.restart(
            self._patience.timeout + (limit if announced is None else announced) / self._patience.slowest
        )
        while piece := self._response.read(min(PIECE, limit - seen + 1)):
            seen += len(piece)
            if seen > limit:
                raise TooLongError(f"sends more than {limit} bytes")
            yield piece
        if announced is not None and seen != announced:
            raise TryAgainError(f"broke off after {seen} of {announced} bytes")

    def body(self, limit: int) -> bytes:
        return b"".join(self.pieces(limit))

    def drained(self) -> bool:
        """Whether the connection may serve again; the rest of a body is read where that is little."""
        if self._response.will_close:
            return False
        if not self._response.isclosed() and (self.length or DRAINED) < DRAINED:
            self._response.read()
        return self._response.isclosed()


class Origin:
    """A scheme, host and port. One connection a thread, kept open between requests."""

    def __init__(self, parts: SplitResult, patience: Patience | None = None) -> None:
        self.scheme, self.host, self.port = parts.scheme.lower(), cast(str, parts.hostname), parts.port
        self.name = f"{self.scheme}://{parts.netloc}"
        self.patience = patience or PATIENCE
        self._kept = threading.local()

    def ask(self, path: str, read: Callable[[Reply], T], *, byte_range: str = "", extra: Extra | None = None) -> T:
        """What `read` makes of the answer to a GET, asked again while it may pass. Raises StoreError."""
        failed, pause = 0.0, self.patience.pause
        for tries in range(1, self.patience.tries + 1):
            try:
                return self._once(path, read, byte_range, extra or Extra())
            except TryAgainError as error:
                wait = jittered(pause, self.patience, error.wait)
                failed = failed or time.monotonic()  # a large file may take long before it breaks off
                spent = time.monotonic() - failed
                if tries == self.patience.tries or spent + wait > self.patience.budget:
                    said = f"{self.name}{path} {error}, in {tries} tries over {spent:.1f} s"
                    raise StoreError(
                        f"{said}; check the address, run the same command again later, or copy the store to a folder"
                    ) from error
            pause *= 2
            time.sleep(wait)
        raise AssertionError

    def _once(self, path: str, read: Callable[[Reply], T], byte_range: str, extra: Extra) -> T:
        import ssl
        from http.client import HTTPException

        span = {"Range": byte_range} if byte_range else {}
        headers = {"Accept-Encoding": "identity", "User-Agent": "kdcache", **span, **extra.headers}
        target = quote(path, safe=SAFE) + (f"?{quote(extra.query, safe=SAFE + '?')}" if extra.query else "")
        kept = self._connection()
        connection, response, whole = kept.http, None, False
        try:
            kept.clock.restart(self.patience.timeout)
            connection.request(extra.method, target, headers=headers)
            response = connection.getresponse()
            reply = Reply(f"{self.name}{path}", response, kept.clock, self.patience)
            if reply.status in RETRIED:
                raise TryAgainError(f"answered {reply.said}", _seconds(reply.header("Retry-After")))
            value = read(reply)
            whole = reply.drained()
            return value
        except ssl.SSLCertVerificationError as error:
            said = f"{self.name} has a certificate that does not hold: {shown(error.verify_message)}"
            raise StoreError(
                f"{said}; check the address and the clock, or name the authority in SSL_CERT_FILE"
            ) from error
        except (OSError, HTTPException) as error:
            raise TryAgainError(f"gave no answer ({type(error).__name__}: {shown(str(error))})") from error
        finally:
            if not whole:
                connection.close()
                if response is not None:
                    response.close()  # http.client leaves this one to us where the server ends the connection

    def _connection(self) -> "_Connection":
        """This thread's own; one that a parent process opened is never used."""
        kept: _Connection | None = getattr(self._kept, "connection", None)
        if kept is None or kept.process != os.getpid():
            self._kept.connection = kept = _Connection(self.scheme, self.host, self.port, self.patience.timeout)
        return kept


class _Connection:
    """A connection of http.client whose answers go by a clock."""

    def __init__(self, scheme: str, host: str, port: int | None, timeout: float) -> None:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if scheme == "https" else HTTPConnection
        self.process, self.clock = os.getpid(), Clock()
        self.http = kind(host, port or kind.default_port, timeout=timeout)
        cast(Any, self.http).response_class = functools.partial(_timed_response, self.clock)

    def __del__(self) -> None:
        self.http.close()


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch("[0-9]{1,6}", text) else 0.0
