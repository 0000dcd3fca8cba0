"""A real S3 server (moto) behind a proxy of this process that spoils answers: any fault of any key."""

import http.client
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from kdcache.places.http_requests import Patience
from tests.kits.web import EVER, PAGE

BUCKET = "team"
PATIENT = Patience(timeout=2.0, tries=3, pause=0.002, longest_pause=0.01, budget=60.0)
SECRET, TOKEN, KEY = "wJalrHidden", "SessionHidden", "AKIATESTKEY"
HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "server", "date"})


@dataclass
class Answer:
    """What the server behind said."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Asked:
    """One request, as the proxy saw it; `key` is beneath the bucket."""

    method: str
    key: str
    headers: dict[str, str] = field(hash=False)


class Proxy(ThreadingHTTPServer):
    """`faults` maps (method, end of a key) to (name of a fault, requests that it spares first, that it spoils)."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.faults: dict[tuple[str, str], tuple[str, int, int]] = {}
        self.asked: list[Asked] = []
        self.counted = Counter[tuple[str, str]]()
        self.sent = 0
        self.pause = 0.0  # seconds before each answer: a network's round trip
        self.elsewhere = ""
        self.before: Callable[[Asked], None] = lambda asked: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has seen enough, or was killed, closes its connection."""

    def spoil(self, method: str, key: str, fault: str, *, spared: int = 0, times: int = EVER) -> None:
        self.counted.clear()
        self.faults = {(method, key): (fault, spared, times)}

    def heal(self) -> None:
        self.faults, self.pause, self.before = {}, 0.0, lambda asked: None
        self.asked.clear()
        self.counted.clear()
        self.sent = 0

    def fault_of(self, asked: Asked) -> str:
        for (method, key), (fault, spared, times) in self.faults.items():
            if method == asked.method and asked.key.endswith(key):
                self.counted[method, asked.key] += 1
                if spared < self.counted[method, asked.key] <= spared + times:
                    return fault
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def log_message(self, *given: Any) -> None:
        """Nothing on the terminal."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.key, dict(self.headers))
        self.server.asked.append(asked)
        self.server.before(asked)
        time.sleep(self.server.pause)
        fault = self.server.fault_of(asked)
        if fault in BEFORE:
            BEFORE[fault](self)
            return
        answer = self.forward(body)
        if fault:
            AFTER[fault](self, answer)
        else:
            self.send(answer)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = serve  # noqa: N815

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

    def forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            connection.request(self.command, self.path, body=body, headers=headers)
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
            return Answer(response.status, kept, response.read())
        finally:
            connection.close()

    def send(self, answer: Answer, *, sent: int | None = None) -> None:
        """The answer; `sent` bytes of its body only, though all are announced."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body if sent is None else answer.body[:sent])
            self.server.sent += len(answer.body)
        self.close_connection = self.close_connection or sent is not None

    def flip(self, answer: Answer) -> None:
        at = len(answer.body) // 2
        spoiled = answer.body[:at] + bytes([answer.body[at] ^ 16]) + answer.body[at + 1 :] if answer.body else b""
        self.send(Answer(answer.status, answer.headers, spoiled))

    def whole(self, answer: Answer) -> None:
        """The whole body to a request for a part."""
        if self.command != "GET":
            self.send(answer)
            return
        del self.headers["Range"]
        self.send(self.forward(b""))

    def stall(self, answer: Answer) -> None:
        self.send(answer, sent=0)
        self.wfile.flush()
        time.sleep(PATIENT.timeout * 1.5)

    def reset(self) -> None:
        self.close_connection = True
        self.connection.close()


def _status(code: int) -> Callable[[_Handler], None]:
    body = f"<Error><Code>Made</Code><Message>{SECRET}</Message></Error>".encode()
    return lambda handler: handler.send(Answer(code, {"Content-Type": "application/xml"}, body))


def _elsewhere(handler: _Handler) -> None:
    handler.send(Answer(307, {"Location": f"{handler.server.elsewhere}{handler.path}"}, b""))


BEFORE: dict[str, Callable[[_Handler], None]] = {
    **{str(code): _status(code) for code in (401, 403, 404, 429, 500, 502, 503)},
    "elsewhere": _elsewhere,
    "reset": _Handler.reset,
}
AFTER: dict[str, Callable[[_Handler, Answer], None]] = {
    "page": lambda handler, answer: handler.send(Answer(200, {"Content-Type": "text/html", "ETag": '"x"'}, PAGE)),
    "page as data": lambda handler, answer: handler.send(Answer(answer.status, answer.headers, PAGE)),
    "empty": lambda handler, answer: handler.send(Answer(answer.status, answer.headers, b"")),
    "cut": lambda handler, answer: handler.send(answer, sent=len(answer.body) // 2),
    "short": lambda handler, answer: handler.send(
        Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
    ),
    "flip": _Handler.flip,
    "no ranges": _Handler.whole,
    "stall": _Handler.stall,
    "lost": lambda handler, answer: handler.reset(),  # it was done, and nobody hears of it
    "lost 500": lambda handler, answer: handler.send(Answer(500, {}, b"")),
}
FAULTS = {**BEFORE, **AFTER}
PASSING = {"429", "500", "502", "503", "reset", "cut", "short", "stall", "lost", "lost 500"}  # these may pass


def environment(proxy: Proxy) -> dict[str, str]:
    """What a user sets to reach this server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """moto with one bucket, behind a proxy."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        assert re.fullmatch("2..", str(_request("PUT", port, f"/{BUCKET}")[0]))
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()


def objects(proxy: Proxy, prefix: str = "") -> dict[str, bytes]:
    """Every object of the bucket by key, read past the proxy and past obstore."""
    status, body = _request("GET", proxy.behind, f"/{BUCKET}?list-type=2&max-keys=1000&prefix={prefix}")
    assert status == 200
    assert b"<IsTruncated>false" in body
    keys = re.findall(rb"<Key>([^<]+)</Key>", body)
    found = {key.decode(): _request("GET", proxy.behind, f"/{BUCKET}/{key.decode()}") for key in keys}
    assert {status for status, _ in found.values()} <= {200}
    return {key: body for key, (_, body) in found.items()}


def _request(method: str, port: int, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=x"}
        connection.request(method, path, body=body, headers=signed)  # moto looks that it is there, not at it
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def put_object(proxy: Proxy, key: str, body: bytes) -> None:
    """Write an object past the proxy, as somebody else does."""
    assert _request("PUT", proxy.behind, f"/{BUCKET}/{key}", body)[0] == 200
