"""A file gets its name create-only: after a crash it is whole or absent, and it never replaces another.

A file is written under a temporary name, fsynced, and hard-linked to its name, which refuses to replace. On file
systems without hard links renameat2 with RENAME_NOREPLACE does the same in one step, where the system has it. Where
neither link nor rename refuses to replace, the first put fails.

Two other ways were weighed and left: O_EXCL on the name itself shows a half-written file under the key after a crash,
and a lock file needs somebody to break the locks of the dead.
"""

import ctypes
import errno
import os
import uuid
from pathlib import Path

TEMPORARY = ".tmp-"
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)
NO_REPLACE = 1  # RENAME_NOREPLACE of renameat2


class CannotRefuseError(OSError):
    """A file system that can create no name without replacing."""


def write_temporary(folder: int, data: bytes) -> str:
    """The name of a new file in an open folder; its `data` is on the disk. Raises OSError and leaves nothing."""
    temporary = f"{TEMPORARY}{uuid.uuid4().hex}"
    descriptor = os.open(temporary, WRITE, 0o666, dir_fd=folder)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        discard(folder, temporary)
        raise
    return temporary


def claim(folder: int, temporary: str, name: str) -> bool:
    """Give a temporary file its name; False where the name is taken. Raises CannotRefuseError."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        reason = error.strerror
    try:
        return rename_no_replace(folder, temporary, name)
    except OSError as error:
        raise CannotRefuseError(
            error.errno, f"no hard links: {reason}; no rename that refuses: {error.strerror}"
        ) from error


def rename_no_replace(folder: int, old: str, new: str) -> bool:
    """Rename within a folder; False where the new name is taken. Raises OSError where the system has no such rename."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(folder, os.fsencode(old), folder, os.fsencode(new), NO_REPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    raise OSError(number, os.strerror(number))


def discard(folder: int, name: str) -> None:
    """Remove a name from an open folder; one that is gone stays gone."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def make_root(root: Path) -> None:
    """Make a folder, and those above it, so that a crash leaves what was made."""
    new_folders = []
    while not root.is_dir():
        new_folders.append(root)
        root = root.parent
    for folder in reversed(new_folders):
        folder.mkdir(exist_ok=True)
        parent = os.open(folder.parent, os.O_DIRECTORY | os.O_CLOEXEC | os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
