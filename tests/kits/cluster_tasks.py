"""What tests deal to workers of a Dask cluster: functions, teachers that fail or never answer; and such workers."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.kits.forks import forks


def jobs_alive() -> int:
    """Jobs of extractions, with their data sets and teachers, that this process holds, by whomever."""
    gc.collect()
    job = getattr(sys.modules.get("kdcache.pipelines.extract.job"), "Job", None)
    return sum(type(item) is job for item in gc.get_objects())


def set_forward_rows(rows: int | None) -> None:
    """Let teachers that are built in this process have forwards of so many rows; None: of whole batches, as on a
    GPU."""
    from kdcache.networks import teacher

    teacher.CPU_ROWS = rows  # type: ignore[assignment]


ROOT = Path(__file__).resolve().parents[2]

FAILING = '''"""Digits and a convnet that fail in ways which a file beside this one names, once the checks are done."""
from pathlib import Path

import torch

from kdcache.views.sources import open_data
from kdcache.networks import convnet

HERE = Path(__file__).parent


def wanted(kind):
    flag = HERE / kind
    return int(flag.read_text()) if flag.exists() else None


class Digits:
    def __init__(self):
        self.inner = open_data("digits", {"limit": 300})
        self.labels, self.ids = self.inner.labels, [f"digit-{index}" for index in range(300)]
        self.class_names = self.inner.class_names

    def __len__(self):
        return 300

    def __getitem__(self, index):
        if index == wanted("unreadable"):
            raise ValueError(f"cannot read {self.ids[index]}")
        return self.inner.samples[index]


def limited(module, inputs):
    limit = wanted("memory")
    if limit is not None and len(inputs[0]) > limit:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def net(width=8, num_classes=10):
    network = convnet(width=width, num_classes=num_classes)
    network.register_forward_pre_hook(limited)
    return network
'''

BUSY = '''"""A convnet that never answers a block in a Dask worker."""
import multiprocessing
import time
from pathlib import Path

from kdcache.networks import convnet


def stall(module, inputs):
    if "Dask" in multiprocessing.current_process().name and len(inputs[0]) > 2:
        Path(__file__).with_name("busy").touch()
        time.sleep(1000)


def net(width=8, num_classes=10):
    network = convnet(width=width, num_classes=num_classes)
    network.register_forward_pre_hook(stall)
    return network
'''


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
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@contextlib.contextmanager
def running(
    tool: str, *given: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> Iterator[None]:
    """`dask worker` or `dask scheduler` in a folder, killed afterwards with all that it started."""
    line = [sys.executable, "-m", "dask", tool, *given]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        line, env=environment, cwd=folder, stdout=quiet, stderr=quiet, start_new_session=True
    ) as process:
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
    """Such workers, killed afterwards."""
    processes = [forks.Process(target=host, args=(scheduler, str(folder))) for folder in folders]
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
