"""Encoded images: whatever kind of source they lie in, equal bytes give equal contents, pixels and views.

A source of them is one small class with the protocol `Encoded`, and one function that opens it as `Described`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress
from kdcache.errors import InvalidInputError
from kdcache.views.decoding import Decoding


class Encoded(Protocol):
    """The encoded images of a source, by index, in whatever process they are read. `readers`: threads that may read at
    once."""

    @property
    def readers(self) -> int: ...

    def content(self, index: int) -> bytes:
        """The bytes of an image as they lie there. Raises InvalidInputError, which names their place."""
        ...

    def place(self, index: int) -> str:
        """The place of an image, for messages."""
        ...

    def state(self, indices: IntArray) -> Iterable[str] | None:
        """Texts that change with these images, see `SourceSamples`."""
        ...


@dataclass(frozen=True)
class EncodedImages:
    """Samples that lie encoded in a source, with labels [N] i32, and are decoded to RGB."""

    source: Encoded
    labels: npt.NDArray[np.int32]
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.decoding.image(self.source.content(index), self.source.place(index)), int(self.labels[index])

    def content(self, index: int) -> bytes:
        """The bytes of a sample as they lie in its source."""
        return self.source.content(index)

    @property
    def decoder(self) -> str:
        return self.decoding.decoder

    @property
    def readers(self) -> int:
        return self.source.readers

    def state(self, indices: IntArray) -> Iterable[str] | None:
        """Texts that change with these samples, see `SourceSamples`."""
        return self.source.state(indices)


@dataclass(frozen=True)
class Described:
    """A source of encoded images as it describes itself: `ids`, `labels` [N] i32 and `class_names` of its images, the
    way to decode them, its `name` without this machine's folders, and notes for the user."""

    source: Encoded
    decoding: Decoding
    ids: Sequence[str]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opening:
    """The opening of a data set: its `place`, the part of a spec after the kind; `labelled` False where labels are not
    looked at."""

    place: str
    labelled: bool
    progress: Progress

    @property
    def path(self) -> Path:
        """The place as a file or folder of this machine."""
        return Path(self.place).expanduser()


def spec_name(head: str, **arguments: Any) -> str:
    """A data set's name: its kind and the arguments that were given, files without their folders."""
    words = [
        f"{key}={Path(v).name if isinstance(v, Path) else v}" for key, v in arguments.items() if v not in ("", None)
    ]
    return " ".join([head, *words])


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises InvalidInputError, which names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read ({error.strerror or error})") from error


def file_state(path: Path) -> str:
    """Name, size and time of a file. Raises InvalidInputError where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read ({error.strerror or error})") from error
    return f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}"
