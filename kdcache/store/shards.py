"""Bytes of shards and chunks: written by Zarr's own codecs, read chunk by chunk once every length has been checked.

A block is encoded whole in a MemoryStore and its bytes are taken from there: zarr, tensorstore and zarrs read them.
Reading a store never hands Zarr a file: metadata, index and frames are compared with the plan first, and then decoded
here, chunk by chunk. A chunk is a blosc frame and its crc32c. The frame's header says how many bytes it holds and
decodes to. A decoder believes the header and allocates that many bytes, so they must be exactly those of the chunk's
shape.
"""

import math
import struct
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc
from zarr.storage import MemoryStore, StorePath

from kdcache.base.arrays import WIDTH
from kdcache.base.canonical import parse_json, sha256_hex
from kdcache.base.limits import ZARR_LIMIT
from kdcache.errors import DamagedError, FormatError, StoreError
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec

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


def encode_shard(spec: ArraySpec, data: Array) -> bytes:
    """Bytes of the shard that holds a block's rows. Equal rows give equal bytes; a ragged block is padded inside."""
    assert data.dtype == spec.dtype, (spec.path, data.dtype, spec.dtype)
    return next(iter(_encode(replace(spec, path="", shape=data.shape), data).values()))


def check_shard(spec: ArraySpec, data: bytes) -> None:
    """Decode every chunk of a shard, one at a time. Raises ValueError or RuntimeError for bytes that are no shard."""
    chunks = spec.shape[0]
    for offset, length in parse_index(data[-index_bytes(chunks) :], chunks, len(data)):
        decode_chunk(data[offset : offset + length], spec.dtype, spec.chunk)


def decode_shard(spec: ArraySpec, data: bytes, block: int) -> Array:
    """All values [Vs, ...] of one block from its shard, padding cut off. Raises ValueError or RuntimeError."""
    chunks = parse_index(data[-index_bytes(spec.shape[0]) :], spec.shape[0], len(data))
    values = np.empty((spec.shape[0], *spec.chunk[1:]), dtype=spec.dtype)
    for row, (offset, length) in enumerate(chunks):
        values[row] = decode_chunk(data[offset : offset + length], spec.dtype, spec.chunk)[0]
    return np.asarray(values[(slice(None), *_row_slices(spec, block))])


def _row_slices(spec: ArraySpec, block: int) -> tuple[slice, ...]:
    """Slices of one row along the first axis that leave the padding of a ragged block out."""
    if spec.block_axis is None:
        return ()
    axis = spec.block_axis
    rows = min(spec.chunk[axis], spec.shape[axis] - block * spec.chunk[axis])
    return (*(slice(None),) * (axis - 1), slice(rows))


def longest_chunk(spec: ArraySpec) -> int:
    """Most bytes that a chunk of an array may have: those of its values, not compressed."""
    return chunk_bytes(spec.dtype, spec.chunk) + OVERHEAD


def largest_shard(spec: ArraySpec) -> int:
    """Most bytes that a shard of an array may have: those of its chunks, not compressed, and of the index."""
    return spec.shape[0] * longest_chunk(spec) + index_bytes(spec.shape[0])


def encode_plain(spec: ArraySpec, data: Array) -> dict[str, bytes]:
    """Key -> bytes for every chunk of an array of the store as a whole."""
    assert data.dtype == spec.dtype, (spec.path, data.dtype, spec.dtype)
    return {f"{spec.path}/{key}": chunk for key, chunk in _encode(replace(spec, path=""), data).items()}


def _encode(spec: ArraySpec, data: Array) -> dict[str, bytes]:
    entries: dict[str, Any] = {}  # the store writes into it
    array = zarr.Array.from_dict(StorePath(MemoryStore(entries)), spec.metadata())
    array.with_config({"write_empty_chunks": True})[...] = data
    return {key: value.to_bytes() for key, value in sorted(entries.items())}


def put_plain(folder: Place, spec: ArraySpec, data: Array) -> None:
    """Write an array of the store as a whole. An array that lies there already stays, whatever compressor wrote its
    bytes. Raises StoreError where its values are others."""
    chunks = encode_plain(spec, data)
    keys = [key for key, chunk in chunks.items() if not folder.put_new(key, chunk)]
    folder.put_same(f"{spec.path}/zarr.json", spec.metadata_bytes())
    if any(folder.digest(key) != sha256_hex(chunks[key]) for key in keys) and not np.array_equal(
        read_whole(folder, spec), data
    ):
        raise StoreError(f"{folder.path(spec.path)} exists with other values; use another store path")


def require_metadata(folder: Place, spec: ArraySpec) -> None:
    """Raises FormatError where a zarr.json differs from what the manifest predicts, DamagedError where it is gone."""
    name = f"{spec.path}/zarr.json"
    data = folder.require(name, "restore it from another copy of the store", limit=ZARR_LIMIT)
    if data == spec.metadata_bytes():
        return
    current, expected = parse_json(data, str(folder.path(name))), spec.metadata()
    for key in sorted(expected.keys() | current.keys()):
        if current.get(key) != expected.get(key):
            problem = f"{key[:80]!r} is {repr(current.get(key))[:160]}, expected {expected.get(key)}"
            advice = "the file was altered: restore it from another copy of the store"
            raise FormatError(f"{folder.path(name)}: {problem}; {advice}")


def read_row(folder: Place, spec: ArraySpec, block: int, row: int, *, size: int, out: Array | None = None) -> Array:
    """Row `row` along the first axis of one block, padding cut off. `size` is the size with which its file was
    committed, `out` a buffer for the decoded chunk, see `decode_chunk`.

    Raises DamagedError where the file is missing, has another size, or does not decode.
    """
    key, index_size = spec.key(block), index_bytes(spec.shape[0])
    try:
        with folder.opened(key) as file:
            if file.size != size:
                raise DamagedError(f"{folder.path(key)} has {file.size} bytes, committed were {size}; {folder.mend}")
            offset, length = parse_index(file.part(max(size - index_size, 0), index_size), spec.shape[0], size)[row]
            if length > longest_chunk(spec):
                raise ValueError(f"chunk {row} has {length} bytes, more than it takes without compression")
            values: Array = decode_chunk(file.part(offset, length), spec.dtype, spec.chunk, out=out)[0]
    except (ValueError, RuntimeError) as error:
        advice = "find the block with: kdcache verify " + str(folder.root)
        raise DamagedError(f"{folder.path(key)} does not decode ({error}); {advice}") from error
    return np.asarray(values[_row_slices(spec, block)])


def read_whole(folder: Place, spec: ArraySpec, *, start: int = 0, stop: int | None = None) -> Array:
    """Entries start:stop of an array of the store as a whole, by default all. They are read once all chunks that hold
    them are known to be there. Raises DamagedError."""
    require_metadata(folder, spec)
    limit = longest_chunk(spec)
    stop = spec.shape[0] if stop is None else stop
    chunks = range(start // spec.chunk[0], -(-stop // spec.chunk[0]))
    for chunk in chunks:
        if folder.size(spec.key(chunk)) is None:
            advice = "restore it from another copy, or run the same `kdcache extract` again"
            raise DamagedError(f"{folder.path(spec.key(chunk))} is missing; {advice}")
    values = np.empty((stop - start, *spec.shape[1:]), dtype=spec.dtype)
    for chunk in chunks:
        data = folder.require(spec.key(chunk), "another process deleted it", limit=limit)
        try:
            chunk_values = decode_chunk(data, spec.dtype, spec.chunk)
        except (ValueError, RuntimeError) as error:
            advice = "restore it from another copy of the store"
            raise DamagedError(f"{folder.path(spec.key(chunk))} does not decode ({error}); {advice}") from error
        chunk_start = chunk * spec.chunk[0]
        part = chunk_values[max(start - chunk_start, 0) : stop - chunk_start]
        offset = max(chunk_start - start, 0)
        values[offset : offset + len(part)] = part
    return values


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
