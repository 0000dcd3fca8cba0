"""An engine is opened as settings name it: this process, or a Dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from kdcache.base.cluster import open_cluster
from kdcache.base.engine import LOCAL, Engine
from kdcache.base.engine_settings import EngineChoice, wants_dask
from kdcache.base.local_cluster import ANY_PORT
from kdcache.base.progress import Progress, silent


@contextmanager
def open_engine(
    settings: EngineChoice,
    *,
    gpus: Callable[[], Sequence[str]] = tuple,
    dashboard: str = ANY_PORT,
    preload: Sequence[str] = (),
    progress: Progress = silent,
) -> Iterator[Engine]:
    """The engine that the settings name; a cluster of this machine ends with the block. The keywords are those of
    `open_cluster`; `progress` hears of its workers and its dashboard.

    Raises InvalidInputError for Dask's settings without Dask, ClusterError for a scheduler that cannot be used.
    """
    if not wants_dask(settings):
        yield LOCAL
        return
    with open_cluster(
        scheduler=settings.scheduler,
        workers=settings.dask_workers,
        gpus=gpus(),
        dashboard=dashboard,
        preload=preload,
    ) as cluster:
        progress(f"{cluster.workers} Dask workers, dashboard {cluster.dashboard_text}", 0, 0)
        yield cluster
