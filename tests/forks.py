"""Processes of the tests, forked from one server that has imported, once, whatever any of them needs.

A process has one fork server, and whoever starts it decides what all later forks find there: torch, scikit-learn,
TensorBoard and Dask take each process 10 CPU seconds otherwise. `conftest` keeps other lists from replacing this one.
"""

import multiprocessing

NEEDED = (
    "kdcache.cli.app",
    "kdcache.pipelines.dask_extract",
    "kdcache.pipelines.dask_worker",
    "kdcache.pipelines.extract",
    "kdcache.pipelines.sharing",
    "kdcache.pipelines.sweep",
    "kdcache.pipelines.train",
    "distributed",
    "sklearn.datasets",
    "torch.utils.tensorboard",
    "tests.clusterkit",
    "tests.killkit",
    "tests.rankskit",
    "tests.webkit",
)

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(list(NEEDED))
