"""Functions that tests deal to workers of a Dask cluster, and workers of another version."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path


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
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A `dask` command in a process group of its own, which is gone afterwards."""
    line = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker" if command[0] == "worker" else "distributed.cli.dask_scheduler",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen([*line, *command[1:]], **{**quiet, **options}) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
