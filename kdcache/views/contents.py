"""Content fingerprints: is this the sample that the teacher saw, whatever decodes or augments it?

The fingerprint is the low 32 bits of xxh3-64 over a sample as it lies in its source: over its bytes where the data set
gives them by `content(index) -> bytes`, else over dtype, shape and values of what it decodes to.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Contents
from kdcache.views.cache_folder import Fingerprints
from kdcache.views.images import plain_tensor

ContentArrays = dict[Contents, npt.NDArray[np.uint32]]
"""Content fingerprints [B] u32 of some rows, by what they are taken over."""

UNKNOWN = 0  # the fingerprint of a struck sample of which nothing could be read


def contents_of(samples: Any) -> Contents:
    """The contents that a data set gives: `bytes` where it has the method, else `values`."""
    return "bytes" if callable(getattr(samples, "content", None)) else "values"


def content_fingerprint(samples: Any, index: int, image: Any, contents: Contents) -> int:
    """The fingerprint of sample `index`, of which `image` is decoded. Raises InvalidInputError where the data set gives
    no bytes."""
    data = image_bytes(image) if contents == "values" else _bytes_of(samples, index)
    return int(xxhash.xxh3_64_intdigest(data)) & 0xFFFFFFFF


def unread_fingerprint(samples: Any, index: int, contents: Contents) -> int:
    """The fingerprint of a sample that cannot be decoded: over its bytes, or 0 where nothing is known of it."""
    try:
        return content_fingerprint(samples, index, None, contents) if contents == "bytes" else UNKNOWN
    except Exception:  # noqa: BLE001  of the user's own code, which could not read the sample either
        return UNKNOWN


def fingerprints_in(contents: ContentArrays, row: int) -> Fingerprints:
    """The fingerprints of a row."""
    first, second, *_ = [*(int(contents[kind][row]) for kind in sorted(contents)), 0, 0]
    return first, second


def put_fingerprints(contents: ContentArrays, fingerprints: npt.NDArray[np.uint32]) -> None:
    """Set the fingerprints [B, 2] of all rows."""
    for number, kind in enumerate(sorted(contents)):
        contents[kind][:] = fingerprints[:, number]


def image_bytes(image: Any) -> bytes:
    """Dtype, shape and values of an image (tensor, array or PIL image) as bytes."""
    values = np.asarray(plain_tensor(image) if isinstance(image, Tensor) else image)
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return f"{values.dtype.name}{list(values.shape)}".encode() + little.tobytes()


def _bytes_of(samples: Any, index: int) -> bytes:
    if contents_of(samples) != "bytes":
        raise InvalidInputError(
            f"the store knows its samples by their bytes, and {type(samples).__name__} gives none; give it a method "
            "content(index) that returns a sample's bytes as they lie in its source, or use the data set that the "
            "store was extracted from"
        )
    data = samples.content(index)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidInputError(
            f"content({index}) of {type(samples).__name__} returned {type(data).__name__}; return the sample's bytes"
        )
    return bytes(data)
