"""One array of a store: where it lies, and its exact Zarr v3 metadata."""

from dataclasses import dataclass
from typing import Any

from kdcache.base.arrays import WIDTH
from kdcache.base.canonical import canonical_json

BLOCK_MAX = 8192  # rows of a block at most
PLAIN_CHUNK = 2**20


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    `block_axis` is the axis that is cut into blocks, None where one shard holds the whole array. `by_rank` is set where
    a chunk holds the numbers of one rank side by side: zstd then codes each rank with a table of its own. `text` says
    in words what it holds. `struck` fills the rows without an answer, None leaves them. Without `by_view` the first
    axis has one entry for all views.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    shard: tuple[int, ...] | None
    chunk: tuple[int, ...]
    block_axis: int | None = None
    by_rank: bool = False
    text: str = ""
    struck: float | None = None
    by_view: bool = True

    def metadata(self) -> dict[str, Any]:
        """The array's zarr.json as a dict. Readers compare the file on disk with it before Zarr sees that."""
        outer = self.shard or self.chunk
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(outer)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if self.dtype.startswith("float") else 0,
            "codecs": self._codecs(),
            "attributes": {},
            "storage_transformers": [],
        }

    def _codecs(self) -> list[dict[str, Any]]:
        to_bytes = (
            {"name": "bytes", "configuration": {"endian": "little"}} if WIDTH[self.dtype] > 1 else {"name": "bytes"}
        )
        blosc = {
            "name": "blosc",
            "configuration": {
                "typesize": WIDTH[self.dtype],
                "cname": "zstd",
                **self._blosc_settings(),
            },
        }
        inner: list[dict[str, Any]] = [to_bytes, blosc, {"name": "crc32c"}]
        if self.shard is None:
            return inner
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        configuration = {
            "chunk_shape": list(self.chunk),
            "codecs": inner,
            "index_codecs": index,
            "index_location": "end",
        }
        return [{"name": "sharding_indexed", "configuration": configuration}]

    def _blosc_settings(self) -> dict[str, Any]:
        """Blosc's settings. Bitshuffle puts equal bits side by side, so that bits that are always zero take no room.
        An array by rank keeps its bytes whole, in one blosc block a rank: each rank has frequent bytes of its own."""
        if not self.by_rank:
            return {"clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
        width = WIDTH[self.dtype]
        return {"clevel": 6, "shuffle": "noshuffle" if width == 1 else "shuffle", "blocksize": BLOCK_MAX * width}

    def entry_of(self, row: int) -> int:
        """The entry of the first axis that holds row `row` of a segment's views."""
        return row if self.by_view else 0

    def metadata_bytes(self) -> bytes:
        return canonical_json(self.metadata())

    def key(self, block: int) -> str:
        """Key of the shard of one block (or of chunk `block` along the first axis of an array without blocks)."""
        axis = self.block_axis if self.block_axis is not None else 0
        cells = [str(block) if dim == axis else "0" for dim in range(len(self.shape))]
        return "/".join([self.path, "c", *cells])


def plain_array(path: str, shape: tuple[int, ...], dtype: str) -> ArraySpec:
    """An array of the store as a whole (order, labels, head): plain chunks along the first axis."""
    return ArraySpec(path, shape, dtype, None, (min(shape[0], PLAIN_CHUNK), *shape[1:]))
