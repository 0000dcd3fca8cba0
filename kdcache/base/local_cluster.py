"""A Dask cluster of this machine: a scheduler, and a worker process a GPU or a core, on loopback, as long as needed."""

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from kdcache.errors import ClusterError, InvalidInputError

MOST_PROCESSES = 8  # by default, where there is no GPU: each holds a teacher
DASHBOARD = "127.0.0.1:8787"
ANY_PORT = "127.0.0.1:0"  # of a dashboard which no user is pointed to: progress is shown by this process
HOST = "127.0.0.1"
LOST_AFTER = "120s"  # Dask no longer restarts a worker that is not back by then: 15 s are too few on a busy machine


@contextmanager
def local_cluster(workers: int, gpus: Sequence[str], dashboard: str, preload: Sequence[str]) -> Iterator[Any]:
    """Scheduler and worker processes of this machine. Daemonic workers could not start loader processes."""
    import dask

    config: dict[str, Any] = {"distributed.worker.daemon": False, "distributed.deploy.lost-worker-timeout": LOST_AFTER}
    if can_fork := sys.platform == "linux" and not gpus:  # CUDA is set up by each process for itself
        config["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(config), _restored_environment(), ExitStack() as stack:
        if can_fork:
            _preload(preload)
        try:
            cluster = _cuda_cluster(workers, gpus, dashboard) or _spec_cluster(workers, gpus, dashboard)
        except (RuntimeError, OSError) as error:
            reason = error.__cause__ or error
            advice = "look at memory and open files, or start fewer with --dask-workers"
            raise ClusterError(f"Dask's worker processes did not start ({reason}); {advice}") from error
        stack.callback(cluster.close)
        yield cluster


def _spec_cluster(workers: int, gpus: Sequence[str], dashboard: str) -> Any:
    """A cluster like `distributed.LocalCluster`, except that each worker has an environment of its own."""
    from dask.system import CPU_COUNT
    from distributed import Nanny, Scheduler, SpecCluster

    level = logging.CRITICAL
    count = workers or len(gpus) or min(CPU_COUNT, MOST_PROCESSES)
    options = {"nthreads": 1, "host": HOST, "memory_limit": 0, "dashboard": False, "silence_logs": level}
    specs = {
        number: {
            "cls": Nanny,
            "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}},
        }
        for number in range(count)
    }
    page = {"dashboard": bool(dashboard), "dashboard_address": _free_address(dashboard) or f"{HOST}:0"}  # metrics
    return SpecCluster(  # type: ignore[no-untyped-call]
        workers=specs,
        scheduler={"cls": Scheduler, "options": {"host": HOST, "port": 0, **page}},
        silence_logs=level,
        name="kdcache",
    )


def _cuda_cluster(workers: int, gpus: Sequence[str], dashboard: str) -> Any:
    """dask-cuda's cluster where it is installed and every GPU gets one worker; it also pins each to its GPU's cores."""
    if not gpus or workers not in (0, len(gpus)):
        return None
    try:
        from dask_cuda import LocalCUDACluster  # type: ignore[import-not-found]
    except ImportError:
        return None
    return LocalCUDACluster(
        CUDA_VISIBLE_DEVICES=list(gpus),
        threads_per_worker=1,
        memory_limit=0,
        host=HOST,
        dashboard_address=_free_address(dashboard) or None,
    )


def _free_address(dashboard: str) -> str:
    """The dashboard's address, at any free port where the one that was named is taken."""
    host, _, port = dashboard.rpartition(":")
    if not dashboard or port == "0":
        return dashboard
    if not host or not port.isdecimal():
        raise InvalidInputError(f"dashboard {dashboard!r} is no HOST:PORT; write for example {DASHBOARD}")
    try:
        with socket.create_server((host, int(port))):
            return dashboard
    except OSError:
        return f"{host}:0"


def _preload(modules: Sequence[str]) -> None:
    """Let workers fork from a server that has imported modules once: another torch takes seconds."""
    from distributed.utils import get_mp_context

    get_mp_context()  # type: ignore[no-untyped-call]  # names modules of its own when it is first called
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", *modules])


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore the environment at the end: Dask sets variables such as OMP_NUM_THREADS here for its workers."""
    variables = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
