"""A web server of this process that shows a folder: with ranges, and with any fault for any file, once or for ever."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from kdcache.places import http_requests
from kdcache.places.http_requests import Patience

QUICK = Patience(timeout=0.4, slowest=2**20, tries=3, pause=0.002, longest_pause=0.01, budget=3.0)
STEADY = replace(QUICK, timeout=5.0, budget=15.0)  # a busy machine's pause is no fault: it would spend a try
PAGE = b"<!doctype html><title>It works</title>" + b"<p>not found</p>" * 20
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")
EVER = 10**9
MIB = 2**20


class Site(ThreadingHTTPServer):
    """`faults` maps a path beneath the folder to (name of a fault, requests that it spares first, that it spoils)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, tuple[str, int, int]] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.counted = Counter[str]()
        self.counting = threading.Lock()
        self.sent = self.connections = 0
        self.elsewhere = ""  # where redirects lead

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that has seen enough closes its connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, and a delayed acknowledgement takes 40 ms
    server: Site

    def log_message(self, *given: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        key = self.key
        self.server.asked.append((key, self.headers.get("Range", "")))
        self.server.headers_seen.append(dict(self.headers))
        fault, spared, spoiled = self.server.faults.get(key, ("", 0, 0))
        with self.server.counting:
            self.server.counted[key] += 1
            count = self.server.counted[key]
        if fault and spared < count <= spared + spoiled:
            FAULTS[fault](self)
            return
        self.show(self.data())

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    @property
    def key(self) -> str:
        return unquote(self.path).strip("/")

    def data(self) -> bytes | None:
        path = self.server.folder / self.key
        return path.read_bytes() if path.is_file() else None

    def asked_for(self, data: bytes) -> tuple[int, int] | None:
        """First and last byte of the range that was asked for."""
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        return None if found is None or not data else (int(found[1]), min(int(found[2]), len(data) - 1))

    def show(self, data: bytes | None, *, ranges: bool = True, shift: int = 0, sent: int | None = None) -> None:
        """Answer as a server does; `sent` bytes of the body only, though all are announced."""
        span = None if data is None else self.asked_for(data)
        if data is None:
            self.answer(404, PAGE, kind="text/html")
        elif span is None or not ranges:
            self.answer(200, data, sent=sent)
        else:
            first, last = span[0] + shift, span[1] + shift
            said = f"bytes {span[0]}-{span[1]}/{len(data)}"
            self.answer(206, (data + data)[first : last + 1], {"Content-Range": said}, sent=sent)

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, kind: str = "", sent: Any = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind or "application/octet-stream", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if sent is None else body[:sent])
        self.server.sent += len(body)
        self.close_connection = self.close_connection or sent is not None

    def cut(self) -> None:
        data = self.data() or b""
        span = self.asked_for(data)
        length = len(data) if span is None else span[1] - span[0] + 1
        self.show(data, sent=length // 2)

    def short(self) -> None:
        """Half of the body, and the announced length agrees."""
        data = self.data() or b""
        span = self.asked_for(data)
        if span is None:
            self.answer(200, data[: len(data) // 2])
            return
        half = data[span[0] : span[1] + 1][: (span[1] - span[0] + 1) // 2]
        self.answer(206, half, {"Content-Range": f"bytes {span[0]}-{span[1]}/{len(data)}"})

    def flip(self) -> None:
        data = self.data() or b""
        at = len(data) // 2
        self.show(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :] if data else data)

    def other_range(self) -> None:
        """Bytes from elsewhere, and the header says so."""
        data = self.data() or b""
        span = self.asked_for(data)
        if span is None:
            self.answer(206, data[1:], {"Content-Range": f"bytes 1-{len(data) - 1}/{len(data)}"})
            return
        first, last = span[0] + 1, span[1] + 1
        self.answer(206, (data + data)[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def endless(self, status: int = 200, announced: bool = False) -> None:
        self.send_response(status)
        if announced:
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.close_connection = True
        while True:
            self.wfile.write(bytes(MIB))
            self.server.sent += MIB

    def drip(self) -> None:
        """An answer that begins, one byte at a time, and never ends."""
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"." * 10_000:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def stall(self) -> None:
        """Headers at once, then nothing."""
        self.show(self.data(), sent=0)
        self.wfile.flush()
        time.sleep(QUICK.timeout * 2)

    def reset(self) -> None:
        self.close_connection = True
        self.connection.close()


def _status(code: int) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(code, b"no")


def _to(address: Callable[[_Handler], str]) -> Callable[[_Handler], None]:
    return lambda handler: handler.answer(302, headers={"Location": address(handler)})


FAULTS: dict[str, Callable[[_Handler], None]] = {
    **{str(code): _status(code) for code in (401, 403, 404, 410, 418, 429, 500, 502, 503, 504)},
    "503 wait": lambda handler: handler.answer(503, headers={"Retry-After": "3600"}),
    "wrong length": lambda handler: handler.show((handler.data() or b"") + b"more"),
    "page": lambda handler: handler.answer(200, PAGE, kind="text/html; charset=utf-8"),
    "page as data": lambda handler: handler.show(PAGE),
    "empty": lambda handler: handler.answer(206 if handler.headers.get("Range") else 200),
    "emptied": lambda handler: handler.show(b""),
    "cut": _Handler.cut,
    "short": _Handler.short,
    "flip": _Handler.flip,
    "wrong bytes": lambda handler: handler.show(handler.data(), shift=1),
    "other range": _Handler.other_range,
    "no ranges": lambda handler: handler.show(handler.data(), ranges=False),
    "elsewhere": _to(lambda handler: f"{handler.server.elsewhere}{handler.path}?token=hidden"),
    "loop": _to(lambda handler: handler.path),
    "stall": _Handler.stall,
    "drip": _Handler.drip,
    "reset": _Handler.reset,
    "endless": _Handler.endless,
    "endless error": lambda handler: handler.endless(404, announced=True),
    "huge": lambda handler: handler.endless(announced=True),
    "encoded": lambda handler: handler.answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
}
SLOW = ("stall", "drip")
TRANSIENT = {
    "503 wait",
    "429",
    "500",
    "502",
    "503",
    "504",
    "cut",
    "stall",
    "drip",
    "reset",
}  # these may pass


@contextmanager
def uncached() -> Iterator[None]:
    """No cache of far stores: every read is a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCACHE_CACHE_LIMIT", "0")
        yield


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """A site for as long as the block lasts, asked with little patience."""
    site, patience = Site(folder), http_requests.PATIENCE
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    http_requests.PATIENCE = QUICK
    try:
        yield site
    finally:
        http_requests.PATIENCE = patience
        site.shutdown()
        site.server_close()
        thread.join()
