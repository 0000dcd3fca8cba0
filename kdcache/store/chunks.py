"""Chunks and shard indexes as bytes: every length is checked before anything is decoded.

A chunk is a blosc frame and its crc32c. The frame's header says how many bytes it holds and decodes to. A decoder
believes the header and allocates that many bytes, so they must be exactly those of the chunk's shape.
"""

import math
import struct
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from kdcache.base.arrays import WIDTH

Array = npt.NDArray[Any]

HEADER = struct.Struct(
    "<BBBBIII"
)  # version, codec version, flags, typesize, bytes decoded, blocksize, bytes of the frame
CHECKSUM = 4
WHOLE = 0x48674BC7  # crc32c of anything that is followed by its own crc32c
ENTRY = 16  # offset and size, u64 each
OVERHEAD = HEADER.size + CHECKSUM
BLOSC_VERSION = 2
COPIED, ZSTD = 2, 4  # flag of a frame that is not compressed; the compressor's number in the three highest bits


def chunk_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a decoded chunk."""
    return WIDTH[dtype] * math.prod(shape)


def index_bytes(chunks: int) -> int:
    """Bytes of a shard's index of `chunks` chunks, which lies at its end."""
    return ENTRY * chunks + CHECKSUM


def parse_index(data: bytes, chunks: int, size: int) -> list[tuple[int, int]]:
    """(offset, size) of every chunk, from the index of a shard of `size` bytes.

    Raises ValueError for a wrong checksum, and for a chunk that is missing, lies outside, or shares its bytes with
    another.
    """
    if len(data) != index_bytes(chunks):
        raise ValueError(f"the shard has {size} bytes, its index alone takes {index_bytes(chunks)}")
    _check(data, "shard index")
    numbers = struct.unpack_from(f"<{2 * chunks}Q", data)  # numpy takes three times as long up to some 50 chunks
    entries, limit, end = list(zip(numbers[::2], numbers[1::2], strict=True)), size - len(data), 0
    for chunk, (offset, length) in enumerate(entries):
        if offset > limit or length > limit:
            raise ValueError(f"chunk {chunk} lies at {offset} with {length} bytes, chunks take bytes 0 to {limit}")
    for offset, length in sorted(entries):
        if end > offset:
            raise ValueError(f"chunks share bytes or end beyond byte {limit}; each has its own")
        end = offset + length
    if end > limit:
        raise ValueError(f"chunks share bytes or end beyond byte {limit}; each has its own")
    return entries


def check_frame(data: bytes, expected: int) -> None:
    """Raises ValueError where a chunk's bytes are not one blosc frame that decodes to `expected` bytes."""
    if len(data) < OVERHEAD:
        raise ValueError(f"a chunk has {len(data)} bytes, the shortest has {OVERHEAD}")
    version, _, flags, _, decoded_size, blocksize, frame_size = HEADER.unpack_from(data)
    if (decoded_size, frame_size) != (expected, len(data) - CHECKSUM):
        sizes = f"announces {frame_size} bytes that decode to {decoded_size}"
        raise ValueError(f"a chunk {sizes}; it has {len(data) - CHECKSUM}, and must decode to {expected}")
    if version != BLOSC_VERSION or not (flags & COPIED or flags >> 5 == ZSTD) or not 0 < blocksize <= max(expected, 1):
        fields = f"version {version}, flags {flags:#04x}, blocksize {blocksize}"
        raise ValueError(
            f"a chunk is no zstd frame of blosc {BLOSC_VERSION} with blocks of up to {expected} ({fields})"
        )


def decode_chunk(data: bytes, dtype: str, shape: tuple[int, ...], *, out: Array | None = None) -> Array:
    """Values [shape] of one chunk, in `out` (u8, as many as the decoded chunk has bytes) or in memory of their own.

    Raises ValueError or RuntimeError, and allocates no more than the chunk's bytes.
    """
    check_frame(data, chunk_bytes(dtype, shape))
    _check(data, "chunk")
    little = np.dtype(dtype).newbyteorder("<")
    values = np.empty(shape, dtype=little) if out is None else out.view(little).reshape(shape)
    blosc.decompress(memoryview(data)[:-CHECKSUM], values)
    return values.astype(dtype, copy=False)


def _check(data: bytes, noun: str) -> None:
    """Raises ValueError where bytes do not end in their own crc32c. The crc32c over both is one constant whatever the
    bytes are, so that nothing is copied to cut the checksum off."""
    if google_crc32c.value(data) != WHOLE:
        stored_crc, crc = int.from_bytes(data[-CHECKSUM:], "little"), google_crc32c.value(data[:-CHECKSUM])
        raise ValueError(f"a {noun} has crc32c {crc:08x}, stored is {stored_crc:08x}")
