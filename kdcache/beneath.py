"""Opening what lies beneath a folder and nothing else: no symbolic link is followed, and only regular files are opened.

Every part of a key is opened relative to the folder before it, so nothing can be exchanged between a check and its use.
The root itself is the user's own word and may be a link.
"""

import errno
import os
import stat
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
    """Parts of a relative key. Raises InvalidInputError for one that could lead elsewhere."""
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidInputError(f"{key!r} is no key of a store; a key is names joined by /, without . and ..")
    return parts


def open_folder(root: Path, parts: list[str], flags: int = PASS) -> int | None:
    """Descriptor of the folder `parts` beneath `root`; None where it, or one before it, is no folder.

    Raises DamagedError for a symbolic link on the way, StoreError where it may not be entered.
    """
    try:
        descriptor = os.open(root, PASS if parts else flags)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise unreadable(root, error) from error
    for depth, part in enumerate(parts, 1):
        above, wanted = descriptor, (flags if depth == len(parts) else PASS) | os.O_NOFOLLOW
        try:
            descriptor = os.open(part, wanted, dir_fd=above)
        except OSError as error:
            path = root.joinpath(*parts[:depth])
            _refuse_link(above, part, path)
            if error.errno in ABSENT:
                return None
            raise unreadable(path, error) from error
        finally:
            os.close(above)
    return descriptor


def _refuse_link(descriptor: int, name: str, path: Path) -> None:
    try:
        mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        raise not_a_file(path, mode)


def file_status(descriptor: int, name: str, path: Path) -> os.stat_result | None:
    """Status of a regular file in an open folder; None where there is nothing. Raises DamagedError for other kinds."""
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise not_a_file(path, found.st_mode)
    return found


def open_file(root: Path, parts: list[str]) -> int | None:
    """Descriptor, for reading, of a regular file beneath `root`; None where there is nothing.

    Raises DamagedError for a symbolic link, FIFO, socket, device or directory in its place or on the way.
    """
    folder = open_folder(root, parts[:-1])
    if folder is None:
        return None
    path = root.joinpath(*parts)
    try:
        if file_status(folder, parts[-1], path) is None:  # opening a device, even to look at it, may move it
            return None
        descriptor = os.open(parts[-1], READ, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(folder)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise not_a_file(path, mode)
    return descriptor


def not_a_file(path: Path, mode: int) -> DamagedError:
    """What is said of a key under which something other than a regular file lies."""
    kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
    return DamagedError(
        f"{path} is {kind}; a store holds regular files in plain folders only: "
        "put the file itself there, or fetch the store again"
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    """What is said of a path that the system refuses to open."""
    return StoreError(f"{path} cannot be opened ({error.strerror}); mend its permissions, or fetch the store again")
