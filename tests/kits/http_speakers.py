"""Everybody who speaks HTTP, with a server of this process that shows one store: plain web server, hub, bucket."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdcache.base.canonical import sha256_hex
from kdcache.errors import KdcacheError
from kdcache.places import http_requests
from kdcache.sharing.push_pull import push
from tests.kits.bucket import KEY, SECRET, TOKEN, Proxy, environment
from tests.kits.http_answers import HIDDEN
from tests.kits.http_server import EVER, Server, Spoiling
from tests.kits.hub_server import TOKEN as HUB_TOKEN
from tests.kits.hub_stub import hub_serving
from tests.kits.web import STEADY, Site, patience, serving, uncached

SECRETS = re.compile("|".join((HIDDEN, "X-Signature", HUB_TOKEN, SECRET, TOKEN, KEY)))


@dataclass(frozen=True)
class Speaker:
    """A store as `url` names it, the servers that show it, and another that nobody should ask."""

    name: str
    url: str
    spoiling: Spoiling
    servers: tuple[Server, ...]
    other: Site
    line: Callable[[str], str]  # the request that brings a file's bytes

    def spoil(self, fault: str, *keys: str, spared: int = 0, times: int = EVER, method: str = "GET") -> None:
        """These files and no others, with the patience that it takes."""
        http_requests.PATIENCE = patience(fault, times)
        self.heal()
        self.also(fault, *keys, spared=spared, times=times, method=method)

    def also(self, fault: str, *keys: str, spared: int = 0, times: int = EVER, method: str = "GET") -> None:
        lines = [self.line(key).replace("GET", method) for key in keys]
        self.spoiling.spoil(fault, *lines, spared=spared, times=times)

    def heal(self) -> None:
        self.spoiling.heal()
        self.other.asked.clear()
        self.other.headers_seen.clear()

    def require_kept_to(self) -> None:
        """Nobody else was asked; the hub, which points elsewhere by design, and obstore, which nobody can keep from it,
        gave no credentials there."""
        assert self.name != "web" or self.other.asked == []
        assert not [seen for seen in self.other.headers_seen if "authorization" in map(str.lower, seen)]

    def asked(self, key: str) -> int:
        """How often a file that was spoiled was asked for."""
        return self.spoiling.counted[self.line(key)]

    def named_in(self, text: str, keys: Iterable[str]) -> str:
        """Which of these files a text names: by its key or, where a server of the hub gave no answer, its address."""
        (found,) = [key for key in keys if key in text or self.line(key).rpartition(" ")[2] in text]
        return found

    def require_named(self, error: KdcacheError, key: str = "") -> None:
        """Of a file or, without a key, of the store, an error names the address; and no secret, whatever it says. Where
        a server gives the hub's files no answer, that server is named."""
        starts = [f"{self.url}/{key} " if key else self.url]
        if self.name == "hub":
            starts = [self.url, self.url.rpartition("/")[0], *(f"{server.url}/" for server in self.servers)]
        assert str(error).startswith(tuple(starts)), error
        assert "; " in str(error)
        assert not SECRETS.search(str(error)), error


@contextmanager
def speaking(name: str, store: Path, bucket: Callable[[], Proxy]) -> Iterator[Speaker]:
    """The speaker of a name, while its server shows a store; without a cache. The bucket's server is started before."""
    kinds = {"web": _web, "hub": _hub, "bucket": lambda *given: _bucket(bucket(), *given)}
    with uncached(), serving(store.parent / "nothing") as other, kinds[name](store, other) as speaker:
        for server in speaker.servers:
            server.elsewhere = other.url
        try:
            yield speaker
        finally:
            speaker.heal()


@contextmanager
def _web(store: Path, other: Site) -> Iterator[Speaker]:
    with serving(store.parent) as site:
        url = f"{site.url}/{store.name}"
        yield Speaker("web", url, site.spoiling, (site,), other, lambda key: f"GET {store.name}/{key}")


@contextmanager
def _hub(store: Path, other: Site) -> Iterator[Speaker]:
    """Large files come from the second server."""
    with hub_serving() as hub:
        url = f"hf://datasets/team/soft/{store.name}"
        push(str(store), url)

        def line(key: str) -> str:
            if f"{store.name}/{key}" in hub.repositories["team/soft"].large:
                return f"second GET file/{sha256_hex((store / key).read_bytes())}"
            return f"hub GET {store.name}/{key}"

        yield Speaker("hub", url, hub.spoiling, (hub.main, hub.second), other, line)


@contextmanager
def _bucket(s3: Proxy, store: Path, other: Site) -> Iterator[Speaker]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3).items():
            patch.setenv(name, value)
        patch.setattr(http_requests, "PATIENCE", STEADY)
        url = f"s3://team/{store.parent.name}/{store.name}"
        push(str(store), url)
        yield Speaker("bucket", url, s3.spoiling, (s3,), other, lambda key: f"GET {store.name}/{key}")
