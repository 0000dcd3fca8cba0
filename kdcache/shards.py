"""Bytes of shards and chunks: numpy arrays through Zarr's own codecs in memory, and arrays opened for reading.

A block is encoded whole in a MemoryStore and its bytes are taken from there: zarr, tensorstore and zarrs read them.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from kdcache.canonical import parse_json, sha256_hex
from kdcache.errors import DamagedError, FormatError, StoreError
from kdcache.files import Folder
from kdcache.layout import ArraySpec

Array = npt.NDArray[Any]


def encode_shard(spec: ArraySpec, data: Array) -> bytes:
    """One shard's bytes for a block's rows; equal rows give equal bytes, and a ragged block is padded inside."""
    assert data.dtype == spec.dtype, (spec.path, data.dtype, spec.dtype)
    return next(iter(_encoded(replace(spec, path="", shape=data.shape), data).values()))


def decode_shard(spec: ArraySpec, data: bytes, shape: tuple[int, ...]) -> Array:
    """A block's rows [shape] from one shard's bytes. Raises ValueError or RuntimeError for bytes that are none."""
    if not data:
        raise ValueError("it is empty")  # Zarr takes it for a shard of fill values
    prototype = default_buffer_prototype()
    memory, alone = MemoryStore(), replace(spec, path="", shape=shape)
    sync(memory.set("zarr.json", prototype.buffer.from_bytes(alone.metadata_bytes())))
    sync(memory.set(alone.key(0).lstrip("/"), prototype.buffer.from_bytes(data)))
    return np.asarray(_as_array(zarr.open_array(memory, mode="r"))[...])


def encode_plain(spec: ArraySpec, data: Array) -> dict[str, bytes]:
    """Key -> bytes for every chunk of an array of the store as a whole."""
    assert data.dtype == spec.dtype, (spec.path, data.dtype, spec.dtype)
    return {f"{spec.path}/{key}": chunk for key, chunk in _encoded(replace(spec, path=""), data).items()}


def _encoded(spec: ArraySpec, data: Array) -> dict[str, bytes]:
    prototype = default_buffer_prototype()
    memory = MemoryStore()
    sync(memory.set("zarr.json", prototype.buffer.from_bytes(spec.metadata_bytes())))
    array = _as_array(zarr.open_array(memory, mode="r+"))  # zarr 3.1 ignores a config given here
    array.with_config({"write_empty_chunks": True})[...] = data
    entries = cast(dict[str, Any], memory._store_dict)
    return {key: value.to_bytes() for key, value in sorted(entries.items()) if key != "zarr.json"}


def put_plain(folder: Folder, spec: ArraySpec, data: Array) -> None:
    """Write a whole-store array, or find it there with these values, in whatever bytes a compressor wrote."""
    chunks = encode_plain(spec, data)
    found = [key for key, chunk in chunks.items() if not folder.put_new(key, chunk)]
    folder.put_same(f"{spec.path}/zarr.json", spec.metadata_bytes())
    if any(folder.get(key) != chunks[key] for key in found) and not np.array_equal(read_whole(folder, spec), data):
        raise StoreError(f"{folder.path(spec.path)} exists with other values; use another store path")


def open_array(folder: Folder, spec: ArraySpec) -> zarr.Array[Any]:
    """Open for reading, after the metadata on disk has been found to be exactly what the manifest predicts."""
    name = f"{spec.path}/zarr.json"
    found = parse_json(folder.require(name, "restore it from another copy of the store"), str(folder.path(name)))
    expected = spec.metadata()
    for key in sorted(expected.keys() | found.keys()):
        if found.get(key) != expected.get(key):
            advice = "the file was altered: restore it from another copy of the store"
            raise FormatError(f"{folder.path(name)}: {key} is {found.get(key)}, expected {expected.get(key)}; {advice}")
    return _as_array(zarr.open_array(LocalStore(folder.root, read_only=True), path=spec.path, mode="r"))


def read_region(folder: Folder, spec: ArraySpec, region: tuple[slice, ...]) -> Array:
    """A region of an array whose shards are known to be there. Raises DamagedError where bytes do not decode."""
    try:
        return np.asarray(open_array(folder, spec)[region])
    except (ValueError, RuntimeError, OSError) as error:
        advice = "find the block with: kdcache verify " + str(folder.root)
        raise DamagedError(f"{folder.path(spec.path)} does not decode ({error}); {advice}") from error


def read_whole(folder: Folder, spec: ArraySpec) -> Array:
    """All of an array of the store as a whole, once every chunk of it is known to be there. Raises DamagedError."""
    for chunk in range(-(-spec.shape[0] // spec.chunk[0])):
        folder.require(spec.key(chunk), "restore it from another copy, or run the same `kdcache extract` again")
    return read_region(folder, spec, (slice(None),) * len(spec.shape))


def values_digest(values: Array) -> str:
    """sha256 over an array's values, C order, little-endian."""
    return sha256_hex(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes())


def _as_array(opened: Any) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", opened)
