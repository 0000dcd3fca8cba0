"""An interpreter of its own imports kdcache once and forks a fresh process for whoever connects: the workers of a Dask
cluster of this machine, each of which would else import torch for seconds. It opens no data set, and texts hash there
otherwise than in workers: what it forks is as fresh as an interpreter that is started for it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Client, Connection

from kdcache.base.launch import NAMES

SERVED = sys.platform == "linux"  # elsewhere a process with threads of the system's own cannot be forked
ADDRESS = "fresh"
WAITING = 128  # connections
JOIN_SECONDS = 5.0
NUMBERED = {*NAMES, "SLURM_PROCID", "SLURM_LOCALID", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"}


def fresh_environment() -> dict[str, str]:
    """This process's environment without what views must not depend on: numbers of processes, and hashes of texts."""
    kept = {name: value for name, value in os.environ.items() if name not in NUMBERED}
    return {**kept, "PYTHONHASHSEED": "random"}


class FreshForks:
    """The interpreter, and the `address` at which it forks. It ends with this process, however that ends; what it
    forked ends with its connection."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kdcache-")  # which nobody else may enter
        self.address = f"{self._folder.name}/{ADDRESS}"
        with socket.socket(socket.AF_UNIX) as listener:  # who connects waits for the imports
            listener.bind(self.address)
            listener.listen(WAITING)
            number = listener.fileno()
            code = f"from kdcache.pipelines.extract.fresh_process import fork; fork({number}, {os.getpid()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
                env=fresh_environment(),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,  # Ctrl-C is this process's to answer
            )  # fmt: skip

    def close(self) -> None:
        """End the interpreter; what it forked goes on."""
        self._process.kill()
        self._process.wait(JOIN_SECONDS)
        self._folder.cleanup()


def forked_at(address: str) -> tuple[Connection, Callable[[], None]]:
    """The channel to a fresh process that is forked at an address of this machine, and what ends it. Raises OSError
    where nothing forks there."""
    channel = Client(address, "AF_UNIX")
    return channel, channel.close
