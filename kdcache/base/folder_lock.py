"""A lock on a folder, in which one process at a time works: runs and sweeps go on from the files that they find there.

It is a record lock (fcntl) on a file in the folder. It ends with its process, however that ends: no lock of a dead
process is left to be broken. Unlike a lock of flock, it does not live on in loader workers that outlast the process.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdcache.errors import InvalidInputError

LOCK = ".lock"
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # from file systems that have no locks


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing; no other process may, on any machine that shares its locks.

    Raises InvalidInputError, naming the process that holds it. Where the system or the file system has no such locks,
    the folder is not held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, folder)
        yield
        os.ftruncate(descriptor, 0)  # equal runs leave equal folders
    finally:
        os.close(descriptor)  # and with it the lock


def _take(descriptor: int, folder: Path) -> None:
    if sys.platform == "win32":  # it has no such locks
        return
    import fcntl

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
    os.pwrite(descriptor, f"process {os.getpid()} of {socket.gethostname()}\n".encode(), 0)
