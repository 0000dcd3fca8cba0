"""Files that are whole or absent, after a crash and after a power loss too: a new one replaces an older one at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdcache.errors import CannotWriteError

TEMPORARY = ".tmp-"


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once. Raises CannotWriteError where that fails; the older file is whole."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path for a new file, which takes the place of `path` where the block ends without an error.

    The file reaches the disk before its name does, and the name before this ends. Folders are made where they are
    missing. Raises CannotWriteError where anything cannot be written; the older file is whole.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with writing(path):
        make_folder(path.parent)
        try:
            yield temporary
            synchronise(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        synchronise_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise CannotWriteError, which names the file, for an error of the system in the block."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error


def cannot_write(path: Path, reason: str) -> CannotWriteError:
    """The error for a file that cannot be written, for a reason."""
    return CannotWriteError(
        f"{path} cannot be written ({reason}); free some space or mend its permissions, and run the same command "
        "again: nothing is half written"
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk before this ends."""
    missing_folders = []
    while not folder.is_dir():
        missing_folders.append(folder)
        folder = folder.parent
    for missing in reversed(missing_folders):
        missing.mkdir(exist_ok=True)
        synchronise_folder(missing.parent)


def synchronise(path: Path) -> None:
    """Let a file's bytes reach the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def synchronise_folder(folder: Path) -> None:
    """Let a folder's names reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
