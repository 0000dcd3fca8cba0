"""Which engine runs computations over blocks: this process, or a Dask cluster that is opened for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from kdcache.errors import InvalidInputError
from kdcache.manifest import validated
from kdcache.pipelines.settings import EngineSettings, ExtractSettings
from kdcache.whole_store.engines import HERE, Engine, OnCluster
from kdcache.whole_store.sources import absolute

ANY_PORT = "127.0.0.1:0"  # of a page that nobody is told of: progress is shown here


def wants_dask(settings: EngineSettings | ExtractSettings) -> bool:
    """Whether Dask is the engine. Raises InvalidInputError where its settings are given, and it is not."""
    if settings.engine == "dask":
        return True
    for name in ("scheduler", "dask_workers"):
        if value := getattr(settings, name):
            raise InvalidInputError(f"{name} is {value!r} without --engine dask; add it, or leave {name} out")
    return False


@contextmanager
def open_engine(settings: EngineSettings) -> Iterator[Engine]:
    """The engine that the settings name; a cluster of this machine ends with the block.

    Raises InvalidInputError for Dask's settings without Dask, ClusterError for a scheduler that cannot be used.
    """
    if not wants_dask(settings):
        yield HERE
        return
    from kdcache.processes.cluster import open_cluster

    modules = ("kdcache.whole_store.verify", "kdcache.whole_store.recode", "kdcache.whole_store.stats")
    with open_cluster(
        scheduler=settings.scheduler, workers=settings.dask_workers, dashboard=ANY_PORT, preload=modules
    ) as cluster:
        yield OnCluster(cluster)


def engine_settings(engine: str, scheduler: str, dask_workers: int) -> EngineSettings:
    """Settings from a command's own flags. Raises InvalidInputError."""
    given = {"engine": engine, "scheduler": scheduler, "dask_workers": dask_workers}
    settings: EngineSettings = validated(EngineSettings, "engine", **given)
    return settings


def seen_by(settings: EngineSettings, url: str) -> str:
    """A store's address as this engine's workers, who may stand elsewhere, know it."""
    return url if settings.engine == "local" else absolute(url)
