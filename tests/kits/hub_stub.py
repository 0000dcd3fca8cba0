"""A stand-in of the hub's HTTP interface, as huggingface-hub uses it, with a second server for large files; and faults.

Large files are answered with a redirect to the second server under an address that holds for one minute. Every request
is written down with whether it carried the token.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from kdcache.places import http_requests
from kdcache.places.opening import open_place
from kdcache.sharing.push_pull import push
from kdcache.sharing.sealed_files import sealed_files
from tests.kits.damage import rich_store
from tests.kits.hub_server import TOKEN, Main, Second, Server, State
from tests.kits.web import QUICK

URL = "hf://datasets/team/soft/rich.kd"
HIDDEN = "X-Signature|hidden|secret"


class Hub(State):
    """Both servers. `faults` maps a piece of a request's line to (name of a fault, requests spared, then spoiled)."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, tuple[str, int, int]] = {}
        self.counted = Counter[str]()
        self.lock = threading.Lock()
        self.main, self.second = Server(self, "hub", Main, self.fault), Server(self, "second", Second, self.fault)
        self.main.second_url, self.second.main_url = self.second.url, self.main.url
        self.threads = [
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            for each in (self.main, self.second)
        ]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        for server, thread in zip((self.main, self.second), self.threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def fault(self, line: str) -> str:
        with self.lock:
            for piece, (name, spared, spoiled) in self.faults.items():
                if piece in line:
                    self.counted[piece] += 1
                    if spared < self.counted[piece] <= spared + spoiled:
                        return name
        return ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub of this process, asked with little patience, through an empty cache."""
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.main.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, to other servers
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(http_requests, "PATIENCE", replace(QUICK, timeout=3.0, budget=20.0))  # no fault of these stalls
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
    try:
        yield hub
    finally:
        _http.close_session()
        hub.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("hub") / "rich.kd")


@pytest.fixture
def pushed(hub: Hub, local: Path) -> Hub:
    push(str(local), URL)
    hub.asked.clear()
    return hub


def sealed(path: Path) -> dict[str, str]:
    """Key -> sha256 of what the latest seal of a store lists."""
    return {file.key: file.sha256 for file in sealed_files(open_place(path), None).files}
