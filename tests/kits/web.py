"""A web server of this process that shows a folder: with ranges, and with any fault for any file, once or for ever."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kdcache.places import http_requests
from kdcache.places.patience import Patience
from tests.kits.http_answers import PAGE, Answer
from tests.kits.http_faults import FAULTS
from tests.kits.http_server import EVER, Handler, Server, running

STEADY = Patience(timeout=10.0, window=10.0, slowest=2**20, tries=3, pause=0.002, longest_pause=0.01, budget=60.0)
QUICK = replace(STEADY, timeout=0.05, window=0.05)  # where no answer is to come
HEARING = replace(
    STEADY, timeout=0.25, window=0.25, tries=100
)  # where one is: of a busy machine's pauses, many pass for a stall


def patience(fault: str, times: int) -> Patience:
    """What a fault takes, where it comes so often."""
    return STEADY if not FAULTS[fault].slow else QUICK if times == EVER else HEARING


class Site(Server):
    """Shows the files of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        self.folder = folder
        self.asked: list[tuple[str, str]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.before: Callable[[str], None] = lambda key: None  # called on the server's thread, before each answer


class _Handler(Handler):
    server: Site

    def note(self) -> None:
        self.server.asked.append((self.key, self.span))
        self.server.headers_seen.append(dict(self.headers))
        self.server.before(self.key)

    def truth(self, *, whole: bool = False) -> Answer:
        path = self.server.folder / self.key
        if not path.is_file():
            return Answer(404, {"Content-Type": "text/html"}, PAGE)
        file = Answer(200, {"Content-Type": "application/octet-stream"}, path.read_bytes())
        return file if whole else self.part(file)


@contextmanager
def uncached() -> Iterator[None]:
    """No cache of far stores: every read is a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCACHE_CACHE_LIMIT", "0")
        yield


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """A site for as long as the block lasts, asked with little patience."""
    site = Site(folder)
    with running(site), pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_requests, "PATIENCE", STEADY)
        yield site
