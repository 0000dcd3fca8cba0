"""Many extractions in a row share a server that has imported kdcache, and forks their fresh processes, each of which
would else import torch for seconds. It opens no data set: what it forks is as fresh as an interpreter of its own."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context

from kdcache.pipelines.extract import fresh_draws
from kdcache.pipelines.extract.fresh_draws import start_in
from kdcache.pipelines.extract.fresh_forks import fresh_environment
from kdcache.pipelines.extract.fresh_process import Channel, open_dataset, serve
from kdcache.views.workers import outlive_signals

IMPORTED = "kdcache.pipelines.extract.fresh_server"


@contextmanager
def shared_server(*imported: str) -> Iterator[None]:
    """While open, fresh processes are forked from one server, which starts with the first. `imported`: further modules
    that the server imports, for other processes that are forked from it."""
    get_context("forkserver").set_forkserver_preload([IMPORTED, *imported])
    start = fresh_draws.launch
    fresh_draws.launch = start_from_server
    try:
        yield
    finally:
        fresh_draws.launch = start


def start_from_server() -> tuple[Channel, Callable[[], None]]:
    """A process that has imported kdcache, and nothing else of this one's; it ends with this one."""
    return start_in("forkserver", _serve, fresh_environment())


def _serve(channel: Channel, environment: dict[str, str]) -> None:
    outlive_signals()
    os.environ.clear()
    os.environ.update(environment)
    serve(channel, open_dataset)
