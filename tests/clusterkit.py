"""Functions that tests deal to workers of a Dask cluster, and workers of another version."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests import stagekit


def squared(item: int) -> int:
    return item * item


def noted(folder: str, item: int) -> int:
    """Leave a file that says that this item was begun."""
    (Path(folder) / f"{item}-{time.monotonic_ns()}").touch()
    return item


def refusing(folder: str, item: int) -> int:
    """Fail for item 3, always; for item 5, the first time."""
    noted(folder, item)
    if item == 3 or (item == 5 and len(list(Path(folder).glob("5-*"))) == 1):
        raise ValueError(f"item {item}")
    return item


def deadly(folder: str, item: int) -> int:
    """Item 0 kills its worker while fewer than `kills` attempts were made, as the file `kills` says."""
    noted(folder, item)
    if item == 0 and len(list(Path(folder).glob("0-*"))) <= int((Path(folder) / "kills").read_text()):
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def another_version(folder: Path, version: str) -> dict[str, str]:
    """The environment of a process whose kdcache says that it is of this version."""
    info = folder / f"kdcache-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kdcache\nVersion: {version}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@contextlib.contextmanager
def running(tool: str, *given: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """`dask worker` or `dask scheduler`, killed afterwards with all that it started."""
    line = [sys.executable, "-m", "dask", tool, *given]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(line, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    """The address of a `dask scheduler`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"):
        yield f"tcp://127.0.0.1:{port}"


def host(scheduler: str, folder: str) -> None:
    """A worker with a working folder of its own, as on a machine of its own, until its scheduler goes."""
    import asyncio

    from distributed import Worker

    async def work() -> None:
        async with Worker(scheduler, nthreads=1, local_directory=folder, dashboard=False, host="127.0.0.1") as worker:
            await worker.finished()

    os.chdir(folder)
    asyncio.run(work())


@contextlib.contextmanager
def hosts(scheduler: str, *folders: Path) -> Iterator[list[BaseProcess]]:
    """Such workers, forked from a server that has imported torch, killed afterwards."""
    context = stagekit.preloaded()
    processes = [context.Process(target=host, args=(scheduler, str(folder))) for folder in folders]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def session(given: list[str], environment: dict[str, str], said: str) -> None:
    """`kdcache` in a session of its own, as in a terminal; what it says on stderr goes to a file."""
    os.setsid()
    with open(said, "w") as file:
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    from kdcache.cli.app import main

    main(given)


def marked(mark: dict[str, str]) -> list[int]:
    """Living processes that were started with this in their environment."""
    ((name, value),) = mark.items()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{name}={value}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
