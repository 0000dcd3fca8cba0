"""What places of every kind do alike: insist on a file, and refuse to be written where they are read only."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NoReturn

from kdcache.base.limits import METADATA_LIMIT
from kdcache.errors import DamagedError


class Insists(ABC):
    """`require`, for whoever has `path` and `get`."""

    @abstractmethod
    def path(self, key: str) -> Path | str: ...

    @abstractmethod
    def get(self, key: str, *, limit: int = METADATA_LIMIT) -> bytes | None: ...

    def require(self, key: str, advice: str, *, limit: int = METADATA_LIMIT) -> bytes:
        """The bytes under a key that must be there. Raises DamagedError."""
        data = self.get(key, limit=limit)
        if data is None:
            raise DamagedError(f"{self.path(key)} is missing; {advice}")
        return data


class ReadOnly(ABC):
    """Refuses whatever would write."""

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
