"""Processes of the tests, forked from one server that has imported, once, whatever any of them needs.

A process has one fork server, and whoever starts it decides what all later forks find there: torch, scikit-learn,
TensorBoard and Dask take each process 10 CPU seconds otherwise. `make torture` needs none of these, and has them not.
"""

import multiprocessing
import multiprocessing.forkserver
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NEEDED = (
    "kdcache.cli.app",
    "kdcache.pipelines.extract.dask_cluster",
    "kdcache.pipelines.extract.dask_worker",
    "kdcache.pipelines.extract.stage",
    "kdcache.sharing.push_pull",
    "kdcache.pipelines.sweep.stage",
    "kdcache.pipelines.train.stage",
    "distributed",
    "sklearn.datasets",
    "torch.utils.tensorboard",
    "tests.kits.cluster_tasks",
    "tests.kits.fresh",
    "tests.kits.kills",
    "tests.kits.sleepers",
    "tests.kits.ranks",
    "tests.kits.web",
)

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.kits.kills"])


@contextmanager
def with_all() -> Iterator[None]:
    """The server, which must not have started, gets all of it; while open, nobody names other modules: what kdcache
    would have Dask's workers forked from has fewer."""
    forks.set_forkserver_preload(list(NEEDED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.forkserver, "set_forkserver_preload", lambda modules: None)
        yield
