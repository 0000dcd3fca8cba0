"""The fingerprint of a view, which proves that training draws the pixels that the teacher saw, mixed the same way; and
that of a token, which proves that its text up to there is the one that the teacher read."""

import numpy as np
import numpy.typing as npt
import xxhash
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.errors import InvalidInputError
from kdcache.store.plan import Mixing


def fingerprint(image: Tensor, mixing: Mixing, row: int) -> int:
    """The fingerprint of one view: xxh3-64 over dtype and shape, the view's bytes, and partner, lambda and box."""
    digest = header(image)
    digest.update(image.contiguous().numpy().data)
    digest.update(tails(mixing)[row])
    return digest.intdigest()


def token_fingerprints(ids: IntArray, sequence: int = 0) -> npt.NDArray[np.uint8]:
    """Fingerprints [L] u8 of the first tokens, ids [L], of one sequence of S tokens, by default of just these: token
    t's is the low byte of xxh3-64 over `int32[S]`, the ids 0 to t as i32le, and t as i64le. Raises InvalidInputError
    for ids that are no i32."""
    if len(ids) and not -(2**31) <= int(ids.min()) <= int(ids.max()) < 2**31:
        raise InvalidInputError(f"token ids {int(ids.min())} to {int(ids.max())} were given; they are i32")
    digest, fingerprints = xxhash.xxh3_64(f"int32[{sequence or len(ids)}]".encode()), bytearray(len(ids))
    id_bytes, places = ids.astype("<i4").tobytes(), np.arange(len(ids), dtype="<i8").tobytes()
    for token in range(len(ids)):
        digest.update(id_bytes[4 * token : 4 * token + 4])
        whole = digest.copy()
        whole.update(places[8 * token : 8 * token + 8])
        fingerprints[token] = whole.intdigest() & 0xFF
    return np.frombuffer(fingerprints, dtype=np.uint8)


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
