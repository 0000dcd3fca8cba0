"""A library that people keep such rows with, in a folder of its own: written once, opened, gathered from, scanned.

All hold the same integers, by name: ids u16 [N, K], gaps u8 [N, K - 1], tail i16 [N, 3], label u16 [N], pixels u8 [N].
Shape letters: N rows, K kept classes, B rows of a batch.
"""

from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def record_of(arrays: Arrays) -> np.dtype[Any]:
    """One row of these arrays, packed."""
    return np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])


def records_of(arrays: Arrays) -> Array:
    """Packed records [N] of these arrays."""
    records = np.empty(len(arrays["pixels"]), record_of(arrays))
    for name, array in arrays.items():
        records[name] = array
    return records


class Library(ABC):
    """One library in a folder. `package` is its name among distributions, "" for numpy; `settings` are not defaults."""

    package: ClassVar[str]
    settings: ClassVar[str] = ""
    scanned: ClassVar[int] = 1  # a scan reads one row of so many

    def __init__(self, folder: Path, arrays: Arrays) -> None:
        self.folder = folder
        self.record, self.rows = record_of(arrays), len(arrays["pixels"])
        self.shapes = {name: array.shape[1:] for name, array in arrays.items()}

    @classmethod
    def title(cls) -> str:
        """Package with its version, and settings."""
        name = f"{cls.package} {version(cls.package)}" if cls.package else f"np.memmap, numpy {np.__version__}"
        return f"{name}, {cls.settings}" if cls.settings else name

    @classmethod
    def installed(cls) -> bool:
        try:
            return bool(version(cls.package or "numpy"))
        except PackageNotFoundError:
            return False

    @abstractmethod
    def write(self, arrays: Arrays) -> None:
        """Write all rows; the folder is empty."""

    @abstractmethod
    def open(self) -> Any:
        """A handle, from the files."""

    @abstractmethod
    def gather(self, handle: Any, rows: Array) -> Arrays:
        """Some rows, in the order asked for: [B, ...]."""

    @abstractmethod
    def scan(self, handle: Any) -> None:
        """Read every `scanned`-th row, in order."""

    @property
    def bytes_on_disk(self) -> int:
        """Lengths of all files; a file system rounds each up to its blocks."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def fields(self, records: Array) -> Arrays:
        return {name: records[name] for name in self.shapes}
