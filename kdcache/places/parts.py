"""Files are read in parts: the protocol of every file that a place opens, a file in memory, a file of this machine."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdcache.errors import StoreNotFoundError
from kdcache.places.safe_open import READ, not_a_file, unreadable


class Parts(Protocol):
    """A file of `size` bytes; `part` reads some of them from an offset on, fewer at the end."""

    @property
    def size(self) -> int: ...

    def part(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class InMemory:
    """A whole file in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def part(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class LocalFile:
    """A regular file of this machine, open for as long as this object lives; threads may share it."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, READ & ~os.O_NOFOLLOW)  # the user's own word, which may be a link
        except FileNotFoundError as error:
            raise StoreNotFoundError(f"{path} does not exist; check the path") from error
        except OSError as error:
            raise unreadable(path, error) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise not_a_file(path, status.st_mode)
        self.size = status.st_size

    def part(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on, fewer at the end."""
        pieces, end = [], min(offset + length, self.size)
        while offset < end and (piece := os.pread(self._descriptor, end - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
