"""Array types that all rooms share, the widths of stored numbers, and the digest of an array's values."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

WIDTH = {"uint8": 1, "uint16": 2, "int16": 2, "float16": 2, "uint32": 4, "int32": 4, "float32": 4, "uint64": 8}
"""Bytes of one number of each dtype that a store holds."""


def values_digest(values: Array) -> str:
    """sha256 over an array's values, C order, little-endian."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(little.reshape(-1).view(np.uint8).data).hexdigest()
