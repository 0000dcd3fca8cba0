"""A web server of this process that answers as its kind does, and spoils the answers that a test names."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.kits.http_answers import Answer
from tests.kits.http_faults import FAULTS

EVER = 10**9
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


class Spoiling:
    """The requests that are spoiled, by pieces of their lines: "PUT classes/c" is in "PUT rich.kd/classes/c/0/0/0"."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[str, int, int]] = {}
        self.counted = Counter[str]()  # requests that a piece is in
        self._lock = threading.Lock()

    def spoil(self, fault: str, *pieces: str, spared: int = 0, times: int = EVER) -> None:
        """Of the requests that hold a piece, spare the first and spoil the next; other pieces stay as they are."""
        with self._lock:
            self._faults |= dict.fromkeys(pieces, (fault, spared, times))

    def heal(self) -> None:
        with self._lock:
            self._faults = {}
            self.counted.clear()

    def fault_of(self, line: str) -> str:
        with self._lock:
            for piece, (fault, spared, times) in self._faults.items():
                if all(word in line for word in piece.split(" ")):
                    self.counted[piece] += 1
                    return fault if spared < self.counted[piece] <= spared + times else ""
        return ""


class Server(ThreadingHTTPServer):
    """Of this machine alone. `elsewhere` is where redirects lead."""

    daemon_threads, block_on_close = True, False
    request_queue_size = 64  # a connection that finds no place is asked for again after a second

    def __init__(self, handler: type["Handler"], spoiling: Spoiling | None = None, name: str = "") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.spoiling, self.name = spoiling or Spoiling(), name
        self.elsewhere = ""
        self.sent = self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has seen enough, or was killed, closes its connection."""


class Handler(BaseHTTPRequestHandler):
    """One connection. A kind of server says what the `truth` is, and may note what was asked."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, and a delayed acknowledgement takes 40 ms
    server: Any
    given = b""

    def log_message(self, *given: Any) -> None:
        """Nothing on the terminal."""

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    @property
    def key(self) -> str:
        """What is asked for, without query."""
        return unquote(urlsplit(self.path).path).strip("/")

    def note(self) -> None:
        """Write down what was asked."""

    def truth(self, *, whole: bool = False) -> Answer:
        """The right answer, done what it takes; `whole` as though all bytes of the file were asked for."""
        raise NotImplementedError

    def serve(self) -> None:
        self.given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.note()
        fault = self.server.spoiling.fault_of(f"{self.server.name} {self.command} {self.key}")
        if fault:
            FAULTS[fault].spoil(self)
        else:
            self.send(self.truth())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

    @property
    def span(self) -> str:
        return str(self.headers.get("Range", ""))

    def asked_for(self, size: int) -> tuple[int, int] | None:
        """First and last byte of the range that was asked for, of a file of so many bytes; None for the whole."""
        found = RANGE.fullmatch(self.span)
        return None if found is None or not size else (int(found[1]), min(int(found[2]), size - 1))

    def part(self, whole: Answer, *, shift: int = 0) -> Answer:
        """What of a file's whole answer was asked for; with `shift`, bytes further on under the same name."""
        data = whole.body
        span = self.asked_for(len(data)) if whole.status == 200 else None
        if span is None:
            return replace(whole, body=data[shift:] + data[:shift])
        first, last = span
        headers = {**whole.headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return Answer(206, headers, (data + data)[first + shift : last + 1 + shift])

    def send(self, answer: Answer, *, announced: int | None = None) -> None:
        """The answer, as long as it is, whatever length is announced."""
        length = len(answer.body) if announced is None else announced
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(length), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
            self.server.sent += len(answer.body)
            self.close_connection = self.close_connection or length != len(answer.body)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Servers that answer for as long as the block lasts."""
    with ExitStack() as stack:
        for server in servers:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        yield
