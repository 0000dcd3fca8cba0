"""Places insist on a file in the same way, far ones open one by spans, and those that are read only refuse writing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import DamagedError
from kdcache.places.parts import Parts


class Insists(ABC):
    """A base that adds `require` to a place with `path` and `get`."""

    @abstractmethod
    def path(self, key: str) -> Path | str: ...

    @abstractmethod
    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None: ...

    def require(self, key: str, advice: str, *, limit: int = METADATA_LIMIT) -> bytes:
        """The bytes under a key that must be there. Raises DamagedError where it is missing."""
        data = self.get(key, limit=limit)
        if data is None:
            raise DamagedError(f"{self.path(key)} is missing; {advice}")
        return data


class Spans(Insists):
    """A base that adds `opened` to a place over a network: each part of a file is one request for a span of it."""

    mend: str

    @abstractmethod
    def size(self, key: str) -> int | None: ...

    @abstractmethod
    def span(self, key: str, first: int, last: int, size: int) -> bytes: ...

    @contextmanager
    def opened(self, key: str) -> Iterator[Parts]:
        """The file under a key, to read parts of. Raises DamagedError where there is none."""
        size = self.size(key)
        if size is None:
            raise DamagedError(f"{self.path(key)} is missing; {self.mend}")
        yield Parts(size, lambda offset, length: self.span(key, offset, offset + length - 1, size))


class ReadOnly(ABC):
    """A base for read-only places: every method that would write refuses."""

    @abstractmethod
    def _read_only(self) -> NoReturn: ...

    def put_new(self, key: str, data: bytes) -> bool:
        self._read_only()

    def put_same(self, key: str, data: bytes) -> None:
        self._read_only()

    def replace(self, key: str, data: bytes) -> None:
        self._read_only()

    def delete(self, key: str) -> None:
        self._read_only()
