"""Patience with servers: what drips is given up within a minute in all tries together, a slow line gets its file."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kdcache.base.parallel import Pool
from kdcache.errors import StoreError
from kdcache.places import http_requests, timed_connection
from kdcache.places.patience import Line, Pace, Patience, TryAgainError
from kdcache.places.web import WebFolder

KEY = "kdcache/manifest.json"
SHORT = Patience(timeout=0.3, window=0.3, slowest=8_192, tries=2, pause=0.001, budget=5.0)
SECONDS = 30.0  # far above what SHORT allows, far below what a body could take


def test_all_tries_together_end_within_a_minute() -> None:
    """A try lasts as long as its headers, a window less one piece, and another window; none begins after the budget."""
    patience = Patience()
    longest = patience.timeout + 2 * patience.window
    assert longest + patience.budget + longest <= 60


def test_a_slow_line_is_shared_by_many_connections() -> None:
    """16 of them over 32 kB/s for a minute: each brings 2 kB/s, and none is given up."""
    patience, line = Patience(), Line()
    paces = [Pace(line, patience) for _ in range(16)]
    for _ in range(60):
        for pace in paces:
            pace.note(2_000, 1.0)
    assert line.count == 16 * 60 * 2_000


@pytest.mark.parametrize(("own", "others"), [(4_000, 0), (500, 10**6)], ids=["the line drips", "one connection drips"])
def test_what_drips_is_given_up_after_a_window(own: int, others: int) -> None:
    patience, line = Patience(), Line()
    pace = Pace(line, patience)
    for _ in range(int(patience.window) - 1):
        line.add(others)
        pace.note(own, 1.0)
    line.add(others)
    with pytest.raises(TryAgainError):
        pace.note(own, 1.0)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server of this machine that does with each connection what a test wants."""

    def run(connection: socket.socket) -> None:
        with connection:
            try:
                serve(connection)
            except OSError:
                return  # who asked has hung up

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def dripping(start: bytes, piece: bytes = b"x") -> Callable[[socket.socket], None]:
    """One piece after another for as long as somebody listens."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.02)  # the drip itself, which nobody waits for

    return serve


@pytest.mark.parametrize(
    ("scheme", "serve"),
    [
        ("http", dripping(b"")),
        ("http", dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"HTTP/1.1 100 Continue\r\n\r\n")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\n\r\n")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 900 + b"\r\n \r\n")),
        ("http", dripping(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n")),
        ("https", dripping(b"\x16\x03\x03\x40\x00")),
        ("https", dripping(b"")),
    ],
    ids=[
        "status",
        "continue",
        "headers",
        "close",
        "length",
        "chunks",
        "extensions",
        "error",
        "handshake",
        "silence",
    ],
)
def test_a_server_that_drips_is_given_up(
    scheme: str, serve: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it drips: in its first line, its headers, its body, or before any of these."""
    monkeypatch.setattr(http_requests, "PATIENCE", SHORT)
    began = time.monotonic()
    with listening(serve) as port:
        folder = WebFolder(f"{scheme}://127.0.0.1:{port}/x.kd")
        try:
            assert folder.get(KEY) is None  # 404: its body is nobody's business
        except StoreError as error:
            assert str(error).startswith(f"{scheme}://127.0.0.1:{port}/x.kd/{KEY} ")  # noqa: PT017
    assert time.monotonic() - began < SECONDS


def test_a_slow_line_gets_its_file_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several times the window, with a length and without one."""
    patience = Patience(timeout=5.0, window=0.5, slowest=4_000, tries=10, budget=60.0, pause=0.001)
    monkeypatch.setattr(http_requests, "PATIENCE", patience)
    data = bytes(range(250)) * 160

    def serve(connection: socket.socket) -> None:
        request = connection.recv(2**16)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 40000\r\n\r\n" if b"known" in request else b"\r\n")
        )
        for start in range(0, len(data), 500):
            connection.sendall(data[start : start + 500])
            time.sleep(0.02)  # 25 kB/s

    with listening(serve) as port:
        folder = WebFolder(f"http://127.0.0.1:{port}/x.kd")
        began = time.monotonic()
        assert folder.get("known") == folder.get("unknown") == data
        assert time.monotonic() - began > 2 * patience.window


def test_the_time_that_a_reader_takes_is_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is slow to take what has come: the clock of the server stands meanwhile."""
    monkeypatch.setattr(http_requests, "PATIENCE", SHORT)
    data = bytes(100_000)

    def serve(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + data)

    with listening(serve) as port:
        pieces = []

        def read(reply: Any) -> None:
            for number, piece in enumerate(reply.pieces(2**20)):
                pieces.append(piece)
                if number < 2:
                    time.sleep(2 * SHORT.window)

        http_requests.Origin(http_requests.split_url(f"http://127.0.0.1:{port}/")).ask("/", read)
    assert b"".join(pieces) == data


def test_an_address_that_swallows_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of two addresses, one of which takes connections to nowhere: a listener whose queue is full."""
    monkeypatch.setattr(http_requests, "PATIENCE", Patience(timeout=2.0, tries=1))
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        with listening(
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        ) as port:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            addresses = [(*kind, deaf.getsockname()), (*kind, ("127.0.0.1", port))]
            monkeypatch.setattr(timed_connection.socket, "getaddrinfo", lambda *given, **named: addresses)
            assert WebFolder("http://twofold.example/x.kd").get(KEY) == b"ok"


def test_a_connection_that_its_server_closed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one try each: a server closes connections that wait, and says nothing about it."""
    monkeypatch.setattr(http_requests, "PATIENCE", Patience(tries=1))
    closed = threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        connection.recv(2**16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()
        closed.release()

    with listening(serve) as port:
        folder = WebFolder(f"http://127.0.0.1:{port}/x.kd")
        for _ in range(3):
            assert folder.get(KEY) == b"ok"
            assert closed.acquire(timeout=SECONDS)


def test_connections_that_a_network_forgot_cost_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three wait, and none of them brings anything any more: once one has failed, no other is tried."""
    monkeypatch.setattr(http_requests, "PATIENCE", SHORT)
    together = threading.Barrier(3)
    forgotten = threading.Event()

    def serve(connection: socket.socket) -> None:
        while connection.recv(2**16):
            if not forgotten.is_set():
                together.wait(SECONDS)  # so that each of three requests has a connection
            elif connection in old:
                continue
            old.append(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    old: list[socket.socket] = []
    with listening(serve) as port:
        folder = WebFolder(f"http://127.0.0.1:{port}/x.kd")
        assert list(Pool(3).map(folder.get, [KEY] * 3)) == [b"ok"] * 3
        forgotten.set()
        assert folder.get(KEY) == b"ok"
        assert len(old) == 4


def test_patience_ends_by_tries_by_time_or_at_once() -> None:
    """Failures that may pass are outlasted; the last one is told with its tries; a final one is not tried again."""
    failures = iter([TryAgainError("a"), TryAgainError("b")])
    patience = Patience(tries=3, pause=0.001)

    def call() -> str:
        if (failure := next(failures, None)) is not None:
            raise failure
        return "done"

    def refusal(error: TryAgainError, tries: str) -> StoreError:
        return StoreError(f"{error}, {tries}")

    assert patience.outlast(call, refusal) == "done"
    for patience, final, tries in (
        (Patience(tries=2, pause=0.001), False, 2),
        (Patience(tries=2, pause=0.001), True, 1),
        (Patience(tries=9, pause=1.0, budget=0.1), False, 1),
    ):
        failures = iter([TryAgainError("no", final=final)] * 9)
        with pytest.raises(StoreError, match=rf"no, in {tries} tries over [0-9.]+ s"):
            patience.outlast(call, refusal)
        assert len(list(failures)) == 9 - tries
