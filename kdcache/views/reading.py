"""Samples are read one by one, and one that cannot be read is named by its index.

An error that is of the machine and not of the sample (too many open files, no memory, a disk that is gone) strikes no
sample: it would strike one after the other.
"""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import PIL.Image

from kdcache.base.user_code import causes_of, sample_error
from kdcache.errors import SampleError

MACHINE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ENOTCONN}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ENOBUFS}
)


class Probed(Protocol):
    """A data set whose samples are probed, as `Data` is."""

    @property
    def probe(self) -> Callable[[int], bytes]: ...


D = TypeVar("D", bound=Probed)


def read_image(samples: Any, index: int) -> Any:
    """The image of a sample, decoded."""
    image = samples[index][0]
    if isinstance(image, PIL.Image.Image):
        image.load()  # one that is opened and not read yet would fail inside the transform
    return image


def read_sample(samples: Any, index: int, name: str = "") -> Any:
    """The image of a sample with an id. Raises SampleError where it cannot be read."""
    try:
        return read_image(samples, index)
    except (Exception, SystemExit) as error:
        raise sample_error(error, index, name, "data set") from error


def is_strikable(error: SampleError) -> bool:
    """True where a sample may be struck for an error: it is at fault itself, and no machine and no transform."""
    for cause in causes_of(error):
        if isinstance(cause, MemoryError | SystemExit) or (isinstance(cause, OSError) and cause.errno in MACHINE):
            return False
    return error.part == "data set"


def read_probe(data: Probed, index: int, name: str) -> bytes:
    """The contents of a sample as they enter the identity. Raises SampleError where they cannot be read."""
    try:
        return data.probe(index)
    except (Exception, SystemExit) as error:
        raise sample_error(error, index, name, "data set") from error


def with_unread_probes(data: D) -> D:
    """The same data set, where a sample that cannot be read has no bytes in the identity. So a store with struck
    samples fits the data set that it was extracted from. One that is so already stays itself."""
    if isinstance(data.probe, _UnreadProbe):
        return data
    return replace(data, probe=_UnreadProbe(data))  # type: ignore[type-var]


@dataclass(frozen=True)
class _UnreadProbe:
    """The probe of a data set; a sample that cannot be read has no bytes."""

    data: Probed

    def __call__(self, index: int) -> bytes:
        try:
            return read_probe(self.data, index, "")
        except SampleError as error:
            if is_strikable(error):
                return b""
            raise


def as_extracted(data: D, stores: Iterable[Any]) -> D:
    """The data set as stores know it: `with_unread_probes` where one of them has struck samples."""
    has_struck = any(len(segment.struck()) for store in stores for segment in store.segments)
    return with_unread_probes(data) if has_struck else data
