"""Files are read in parts: `Parts` is every file that a place opens, wherever its bytes lie."""

import os
import stat
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdcache.errors import StoreNotFoundError
from kdcache.places.safe_open import READ, not_a_file, unreadable


@dataclass(frozen=True)
class Parts:
    """An open file of `size` bytes, which threads may share. `fetch(offset, length)` reads `length` > 0 bytes that lie
    inside, or fewer where the file has been cut meanwhile."""

    size: int
    fetch: Callable[[int, int], bytes]

    def part(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end."""
        length = min(length, self.size - offset)
        return self.fetch(offset, length) if length > 0 else b""


def in_memory(data: bytes) -> Parts:
    """A whole file in memory."""
    return Parts(len(data), lambda offset, length: data[offset : offset + length])


def of_descriptor(descriptor: int, size: int) -> Parts:
    """A file of this machine that somebody else holds open."""

    def fetch(offset: int, length: int) -> bytes:
        data = os.pread(descriptor, length, offset)
        while len(data) < length and (rest := os.pread(descriptor, length - len(data), offset + len(data))):
            data += rest
        return data

    return Parts(size, fetch)


def open_local(path: Path) -> Parts:
    """A regular file of this machine that the user names, open for as long as the result lives.

    Raises StoreNotFoundError where there is none, DamagedError for anything that is not a regular file.
    """
    try:
        descriptor = os.open(path, READ & ~os.O_NOFOLLOW)  # the user's own word, which may be a link
    except FileNotFoundError as error:
        raise StoreNotFoundError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise not_a_file(path, status.st_mode)
    file = of_descriptor(descriptor, status.st_size)
    weakref.finalize(file, os.close, descriptor)
    return file
