"""A lock on a folder, in which one process at a time works: runs and sweeps go on from the files that they find there.

It is a record lock (fcntl) on a file in the folder. It ends with its process, however that ends: no lock of a dead
process is left to be broken. Unlike a lock of flock, it does not live on in loader workers that outlast the process.

Where such locks do not reach (some network file systems), two machines can both believe that they hold a folder. So
each writes a random token into it, and looks at it before it replaces a file: who finds another's token stops.
"""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdcache.base.whole_files import write_whole
from kdcache.errors import InvalidInputError

LOCK = ".lock"
HOLDER = ".holder"  # holds the last holder's name and token; gone where it ended in order
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # from file systems that have no locks


@dataclass(frozen=True)
class Hold:
    """A folder that this process holds, and its own line in `HOLDER`."""

    folder: Path
    line: str

    def require(self) -> None:
        """Raises InvalidInputError, naming the other process, where another one has taken the folder since."""
        line = self.holder()
        if line != self.line:
            other = line.partition(", token")[0] or "another process, which has ended"
            raise InvalidInputError(
                f"{self.folder} was taken over by {other}, which this process's lock does not reach; this process "
                "stops, and writes nothing more into it: let one command work in a folder at a time"
            )

    def holder(self) -> str:
        """The line of the process that took the folder last; empty where it has ended in order."""
        try:
            return (self.folder / HOLDER).read_bytes().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""


@contextmanager
def held(folder: Path) -> Iterator[Hold]:
    """Hold a folder, made where it is missing; no other process may, on any machine that shares its locks.

    Raises InvalidInputError, naming the process that holds it. Where the file system has no such locks, the folder
    is not held: then `Hold.require` tells of another process that took it later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, folder)
        hold = Hold(folder, f"{_process_name()}, token {secrets.token_hex(16)}")
        write_whole(folder / HOLDER, f"{hold.line}\n".encode())
        try:
            yield hold
        finally:
            if hold.holder() == hold.line:  # equal runs leave equal folders
                (folder / HOLDER).unlink(missing_ok=True)
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # and with it the lock


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNKNOWN:
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        advice = "wait for it to end or stop it, or choose another folder"
        raise InvalidInputError(f"{folder} is in use by {holder}; {advice}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{_process_name()}\n".encode(), 0)


def _process_name() -> str:
    return f"process {os.getpid()} of {socket.gethostname()}"
