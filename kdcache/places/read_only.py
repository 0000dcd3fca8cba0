"""Places of every kind insist on a file in the same way, and those that are read only refuse to be written."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NoReturn

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import DamagedError


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
