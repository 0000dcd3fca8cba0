"""A web server is asked for files: every answer is bounded in time and bytes, and no redirect is followed.

A store's server is not trusted, so requests go through the standard library's http.client. obstore 0.12 follows
redirects to any host and takes the body of an error into memory whole: one that announces a terabyte ends the process.
httpcore2 2.16, with a network backend of ours, kept the same promises in as many lines; it stays out, since it gains
nothing for three more packages.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from kdcache.errors import InvalidInputError, StoreError
from kdcache.places.patience import Line, Pace, Patience, TryAgainError
from kdcache.places.timed_connection import Clock, Connection

if TYPE_CHECKING:
    from http.client import HTTPResponse

T = TypeVar("T")
SCHEMES = ("http", "https")
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAFE = "/%:@!$&'()*+,;=~"
PIECE = 2**20
KEPT = 16  # connections to a server that wait for the next request
DRAINED = 2**14  # bytes of a body that nobody wants, for which a connection is kept
SHOWN = 120  # characters of a server's words that a message shows


PATIENCE = Patience()


@dataclass(frozen=True)
class Extra:
    """Further parts of a request, which no message shows."""

    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)


class TooLongError(Exception):
    """A body has more bytes than were agreed."""


def shown(text: str) -> str:
    """A server's words as a message shows them: short, and nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:SHOWN])


def split_url(url: str) -> SplitResult:
    """A store's URL in parts. Raises InvalidInputError, which shows no secrets, for one that kdcache does not read."""
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


class Reply:
    """One answer: its status and headers, and its body, which is read up to a limit that the reader names."""

    def __init__(self, url: str, response: "HTTPResponse", clock: Clock, line: Line, patience: Patience) -> None:
        self.url = url
        self.status = response.status
        self.status_line = f"{response.status} {shown(response.reason or '')}".strip()
        self.length = response.length  # None where none is announced
        self._response, self._clock, self._line, self._patience = response, clock, line, patience

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    @property
    def location(self) -> SplitResult | None:
        """The address that a redirect leads to, whole; its query may be secret. None for other answers."""
        try:
            return urlsplit(urljoin(self.url, self.header("Location"))) if self.status in REDIRECTS else None
        except ValueError:
            return urlsplit("nowhere:")

    @property
    def redirect(self) -> str:
        """The address that a redirect leads to, without the parts that may be secret; empty for other answers."""
        parts = self.location
        return "" if parts is None else shown(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")

    def pieces(self, limit: int) -> Iterator[bytes]:
        """The body in pieces. Raises TooLongError beyond `limit` bytes, TryAgainError where it drips or ends early."""
        length, count, pace = self.length, 0, Pace(self._line, self._patience)
        if length is not None and length > limit:
            raise TooLongError(f"announces {length} bytes")
        while piece := self._piece(min(PIECE, self._patience.piece, limit - count + 1), pace):
            count += len(piece)
            if count > limit:
                raise TooLongError(f"sends more than {limit} bytes")
            yield piece  # the time that its reader takes is not the server's
        if length is not None and count != length:
            raise TryAgainError(f"broke off after {count} of {length} bytes")

    def _piece(self, size: int, pace: Pace) -> bytes:
        """The next bytes, all of which come within a window; fewer at the end."""
        began = time.monotonic()
        self._clock.restart(self._patience.window)
        try:
            piece = self._response.read(size)
        except TimeoutError as error:
            raise pace.too_slow() from error
        if len(piece) == size:  # fewer are the last
            pace.note(size, time.monotonic() - began)
        return piece

    def body(self, limit: int) -> bytes:
        return b"".join(self.pieces(limit))

    def drained(self) -> bool:
        """True where the connection may serve again; the rest of a body is read where that is little."""
        from http.client import HTTPException

        if self._response.will_close:
            return False
        if not self._response.isclosed() and (self.length or DRAINED) < DRAINED:
            with suppress(OSError, HTTPException):  # what was asked for has come
                self._response.read()
        return self._response.isclosed()


class Origin:
    """A web server by scheme, host and port, and its connections: each serves one request at a time, from any thread.

    There are as many as requests are under way at a time, at most; up to KEPT stay open between requests.
    """

    def __init__(self, parts: SplitResult, patience: Patience | None = None) -> None:
        self.scheme, self.host, self.port = parts.scheme.lower(), cast(str, parts.hostname), parts.port
        self.name = f"{self.scheme}://{parts.netloc}"
        self.patience = patience or PATIENCE
        self._line, self._idle = Line(), list[Connection]()

    def ask(self, path: str, read: Callable[[Reply], T], *, byte_range: str = "", extra: Extra | None = None) -> T:
        """The result of `read` on the answer to a request, which is asked again while its failure may pass.

        Raises StoreError.
        """

        def refusal(error: TryAgainError, tries: str) -> StoreError:
            advice = "check the address, run the same command again later, or copy the store to a folder"
            return StoreError(f"{self.name}{path} {error}, {tries}; {advice}")

        return self.patience.outlast(lambda: self.once(path, read, byte_range=byte_range, extra=extra), refusal)

    def once(self, path: str, read: Callable[[Reply], T], *, byte_range: str = "", extra: Extra | None = None) -> T:
        """The same in one try. Raises TryAgainError too."""
        import ssl
        from http.client import HTTPException

        span = {"Range": byte_range} if byte_range else {}
        extra = extra or Extra()
        headers = {"Accept-Encoding": "identity", "User-Agent": "kdcache", **span, **extra.headers}
        target = quote(path, safe=SAFE) + (f"?{quote(extra.query, safe=SAFE + '?')}" if extra.query else "")
        connection = self._connection()
        http, response, reusable = connection.http, None, False
        try:
            connection.clock.restart(self.patience.timeout)
            http.request(extra.method, target, headers=headers)
            response = http.getresponse()
            reply = Reply(f"{self.name}{path}", response, connection.clock, self._line, self.patience)
            if reply.status in RETRIED:
                raise TryAgainError(f"answered {reply.status_line}", _seconds(reply.header("Retry-After")))
            value = read(reply)
            reusable = reply.drained()
            return value
        except ssl.SSLCertVerificationError as error:
            problem = f"{self.name} has a certificate that does not hold: {shown(error.verify_message)}"
            raise StoreError(
                f"{problem}; check the address and the clock, or name the authority in SSL_CERT_FILE"
            ) from error
        except (OSError, HTTPException) as error:
            self._idle.clear()  # what broke this connection may have broken those that wait
            raise TryAgainError(f"gave no answer ({type(error).__name__}: {shown(str(error))})") from error
        finally:
            if reusable and len(self._idle) < KEPT:
                self._idle.append(connection)
            else:
                http.close()
                if response is not None:
                    response.close()  # http.client leaves this one to us where the server ends the connection

    def _connection(self) -> Connection:
        """A connection that waits, else a new one. Those that a parent process opened are never used."""
        while True:
            try:
                connection = self._idle.pop()  # whole under threads: no lock, which a fork might leave locked
            except IndexError:
                return Connection(self.scheme, self.host, self.port, self.patience.timeout)
            if connection.waits:
                return connection


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch("[0-9]{1,6}", text) else 0.0
