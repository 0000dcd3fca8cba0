"""The fingerprint of a view, which proves that training draws the pixels that the teacher saw, mixed the same way."""

import numpy as np
import xxhash
from torch import Tensor

from kdcache.store.plan import Mixing


def fingerprint(image: Tensor, mixing: Mixing, row: int) -> int:
    """The fingerprint of one view: xxh3-64 over dtype and shape, the view's bytes, and partner, lambda and box."""
    digest = header(image)
    digest.update(image.contiguous().numpy().data)
    digest.update(tails(mixing)[row])
    return digest.intdigest()


def header(image: Tensor) -> xxhash.xxh3_64:
    """The digest with which a view's fingerprint begins: over dtype and shape."""
    shape = ",".join(str(size) for size in image.shape)
    return xxhash.xxh3_64(f"{str(image.dtype).removeprefix('torch.')}[{shape}]".encode())


def tails(mixing: Mixing) -> list[bytes]:
    """Partner, lambda and box of each row, little-endian: the bytes that end a fingerprint."""
    records = np.empty(len(mixing.lam), dtype=[("partner", "<i8"), ("lam", "<f8"), ("box", "<i8", 4)])
    records["partner"], records["lam"], records["box"] = mixing.partners, mixing.lam, mixing.boxes
    data, size = records.tobytes(), records.dtype.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]
