"""The protocol of a source's samples: all that the rest of kdcache asks of them, whatever kind of source it is."""

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from kdcache.base.arrays import IntArray


@runtime_checkable
class SourceSamples(Protocol):
    """Samples that kdcache itself reads from where they lie, beside their `content(index) -> bytes`.

    `decoder`: the library that makes pixels of their bytes, "" where none is known. `readers`: threads that may read
    contents at once. `state(indices)`: texts that change with these samples (names, sizes and times of files), None
    where only the samples themselves can tell.
    """

    @property
    def decoder(self) -> str: ...
    @property
    def readers(self) -> int: ...
    def state(self, indices: IntArray) -> Iterable[str] | None: ...


def decoder_of(samples: Any) -> str:
    """The library that makes pixels of a data set's bytes; "" where it is not known."""
    return samples.decoder if isinstance(samples, SourceSamples) else ""


def readers_of(samples: Any) -> int:
    """Threads that may read contents of a data set at once; 1 for a data set of the user's own."""
    return samples.readers if isinstance(samples, SourceSamples) else 1


def state_of(samples: Any, indices: IntArray) -> Iterable[str] | None:
    """Texts that change with these samples of a data set; None where only the samples themselves can tell."""
    return samples.state(indices) if isinstance(samples, SourceSamples) else None


def state_digest(samples: Any, indices: IntArray) -> str | None:
    """The sha256 (hex) over the state of these samples."""
    if (state := state_of(samples, indices)) is None:
        return None
    digest = hashlib.sha256()
    for text in state:
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
