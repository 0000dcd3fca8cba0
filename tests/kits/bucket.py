"""A real S3 server (moto) behind a proxy of this process that spoils answers: any fault of any key."""

import http.client
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kdcache.places.patience import Patience
from tests.kits.http_answers import Answer
from tests.kits.http_server import Handler, Server, running

BUCKET = "team"
PATIENT = Patience(timeout=10.0, tries=3, pause=0.002, longest_pause=0.01, budget=60.0)
SECRET, TOKEN, KEY = "wJalrHidden", "SessionHidden", "AKIATESTKEY"
HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "server", "date"})


@dataclass(frozen=True)
class Asked:
    """One request, as the proxy saw it; `key` is beneath the bucket."""

    method: str
    key: str
    headers: dict[str, str] = field(hash=False)


class Proxy(Server):
    """Stands before a server of this machine."""

    def __init__(self, behind: int) -> None:
        super().__init__(_Handler)
        self.behind = behind
        self.asked: list[Asked] = []
        self.pause = 0.0  # seconds before each answer: a network's round trip
        self.before: Callable[[Asked], None] = lambda asked: None

    def heal(self) -> None:
        self.pause, self.before = 0.0, lambda asked: None
        self.spoiling.heal()
        self.asked.clear()
        self.sent = 0


class _Handler(Handler):
    server: Proxy

    @property
    def key(self) -> str:
        return super().key.removeprefix(BUCKET).lstrip("/")

    def note(self) -> None:
        asked = Asked(self.command, self.key, dict(self.headers))
        self.server.asked.append(asked)
        self.server.before(asked)
        time.sleep(self.server.pause)

    def truth(self, *, whole: bool = False) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        try:
            dropped = HOP | {"range"} if whole else HOP
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection.request(self.command, self.path, body=self.given, headers=headers)
            response = connection.getresponse()
            dropped = HOP if self.command == "HEAD" else HOP | {"content-length"}
            kept = {name: value for name, value in response.getheaders() if name.lower() not in dropped}
            return Answer(response.status, kept, response.read())
        finally:
            connection.close()


def environment(proxy: Proxy) -> dict[str, str]:
    """The environment that a user sets to reach this server."""
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

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    proxy = Proxy(port)
    try:
        assert re.fullmatch("2..", str(_request("PUT", port, f"/{BUCKET}")[0]))
        with running(proxy):
            yield proxy
    finally:
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
