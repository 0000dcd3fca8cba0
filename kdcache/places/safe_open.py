"""Files are opened beneath a folder and nowhere else: no symbolic link is followed, and only regular files are opened.

Every part of a key is opened relative to the folder before it, so nothing can be exchanged between a check and its use.
The root itself is named by the user, and may be a link.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from kdcache.errors import DamagedError, InvalidInputError, StoreError

# O_PATH asks for the right to pass through a folder (x), not to list it (r); where there is none, listing is asked for.
PASS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
LIST = os.O_DIRECTORY | os.O_CLOEXEC | os.O_RDONLY
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would wait for its writer
ABSENT = (errno.ENOENT, errno.ENOTDIR)
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def split_key(key: str) -> list[str]:
    """The parts of a relative key. Raises InvalidInputError for a key that could lead elsewhere."""
    parts = key.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in key:
        raise InvalidInputError(f"{key!r} is no key of a store; a key is names joined by /, without . and ..")
    return parts


@dataclass(frozen=True)
class Way:
    """An open folder beneath a root: the parts of the way there, and its descriptor."""

    parts: list[str]
    descriptor: int


def open_folder(root: Path, parts: list[str], flags: int = PASS, *, way: Way | None = None) -> int | None:
    """Descriptor of the folder `parts` beneath `root`; None where it, or one before it, is no folder.

    `way`: an open folder to begin at; `parts` start with its parts. Raises DamagedError for a symbolic link on the way,
    StoreError where a folder may not be entered.
    """
    try:
        descriptor = _start(root, parts, flags, way)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise unreadable(root, error) from error
    start = 0 if way is None else len(way.parts)
    for depth, part in enumerate(parts[start:], start + 1):
        parent, part_flags = descriptor, (flags if depth == len(parts) else PASS) | os.O_NOFOLLOW
        try:
            descriptor = os.open(part, part_flags, dir_fd=parent)
        except OSError as error:
            path = root.joinpath(*parts[:depth])
            _refuse_link(parent, part, path)
            if error.errno in ABSENT:
                return None
            raise unreadable(path, error) from error
        finally:
            os.close(parent)
    return descriptor


def _start(root: Path, parts: list[str], flags: int, way: Way | None) -> int:
    """Descriptor of the folder to begin at: the root, or that of a way, opened anew where it is the very one."""
    if way is None:
        return os.open(root, PASS if parts else flags)
    return os.dup(way.descriptor) if parts != way.parts else os.open(".", flags, dir_fd=way.descriptor)


def _refuse_link(descriptor: int, name: str, path: Path) -> None:
    try:
        mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise not_a_file(path, mode)


def file_status(descriptor: int, root: Path, parts: list[str]) -> os.stat_result | None:
    """Status of a regular file in the open folder `descriptor`; None where there is nothing.

    Raises DamagedError for other kinds.
    """
    try:
        status = os.stat(parts[-1], dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(root.joinpath(*parts), error) from error
    if not stat.S_ISREG(status.st_mode):
        raise not_a_file(root.joinpath(*parts), status.st_mode)
    return status


def open_file(root: Path, parts: list[str], *, way: Way | None = None) -> int | None:
    """Descriptor, for reading, of a regular file beneath `root`; None where there is nothing.

    `way`: an open folder on the way, or the file's own. Raises DamagedError for a symbolic link, FIFO, socket, device
    or directory in the file's place or on the way.
    """
    folder = open_folder(root, parts[:-1], way=way)
    if folder is None:
        return None
    try:
        if file_status(folder, root, parts) is None:  # opening a device, even to look at it, may move it
            return None
        descriptor = os.open(parts[-1], READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(root.joinpath(*parts), error) from error
    finally:
        os.close(folder)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise not_a_file(root.joinpath(*parts), mode)
    return descriptor


def not_a_file(path: Path, mode: int) -> DamagedError:
    """The error for a path at which something other than a regular file lies."""
    kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
    return DamagedError(
        f"{path} is {kind}; a store holds regular files in plain folders only: "
        "put the file itself there, or fetch the store again"
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    """The error for a path that the system refuses to open."""
    return StoreError(f"{path} cannot be opened ({error.strerror}); mend its permissions, or fetch the store again")
