"""A stand-in of the hub's HTTP interface, as huggingface-hub uses it, with a second server for large files; and faults.

Large files are answered with a redirect to the second server under an address that holds for one minute. Every request
is written down with whether it carried the token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.kits.http_server import Spoiling, running
from tests.kits.hub_server import TOKEN, HubServer, Main, Second, State
from tests.kits.web import STEADY

URL = "hf://datasets/team/soft/rich.kd"
HIDDEN = "X-Signature|hidden|secret"


class Hub(State):
    """Both servers, and which of their requests are spoiled."""

    def __init__(self) -> None:
        super().__init__()
        self.spoiling = Spoiling()
        self.main = HubServer(self, "hub", Main, self.spoiling)
        self.second = HubServer(self, "second", Second, self.spoiling)
        self.main.second_url = self.second.url


@contextmanager
def hub_serving() -> Iterator[Hub]:
    """A hub of this process that is huggingface-hub's, asked with little patience; its token in the environment."""
    hub = Hub()
    with running(hub.main, hub.second), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.main.url)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # a protocol of its own, to other servers
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setattr(http_requests, "PATIENCE", STEADY)
        patch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        try:
            yield hub
        finally:
            getattr(_http, "close_session" if hasattr(_http, "close_session") else "reset_sessions")()  # 1.0, or older


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """That hub, through an empty cache."""
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))
    with hub_serving() as hub:
        yield hub


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
