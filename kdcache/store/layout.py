"""The layout of format 1: where every array lies and its exact Zarr v3 metadata, pure functions of identity and views.

Shape letters: Vs views of a segment, N positions, K kept classes, C classes, L labels a row (2 under mixing), D width.
"""

from dataclasses import dataclass, field
from typing import Any

from kdcache.base.arrays import WIDTH
from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding, class_dtype
from kdcache.store.manifest import Identity

BLOCK_MAX = 8192
BLOCK_MIN = 64  # one mixing group
BLOCKS_WANTED = 64
SHARD_BYTES = 64_000_000
CHUNK_BYTES = 32_000_000
PLAIN_CHUNK = 2**20
CANARY_ROWS = 64

MANIFEST = "kdcache/manifest.json"
CARD = "kdcache/card.json"
PARTIAL = "kdcache/partial.json"
LATEST_SEAL = "kdcache/seals/latest"


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    `block_axis` is the axis that is cut into blocks, None where one shard holds the whole array. `by_rank` is set where
    a chunk holds the numbers of one rank side by side: zstd then codes each rank with a table of its own.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    shard: tuple[int, ...] | None
    chunk: tuple[int, ...]
    block_axis: int | None = None
    by_rank: bool = False

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

    def metadata_bytes(self) -> bytes:
        return canonical_json(self.metadata())

    def key(self, block: int) -> str:
        """Key of the shard of one block (or of chunk `block` along the first axis of an array without blocks)."""
        axis = self.block_axis if self.block_axis is not None else 0
        cells = [str(block) if dim == axis else "0" for dim in range(len(self.shape))]
        return "/".join([self.path, "c", *cells])


@dataclass(frozen=True)
class SegmentLayout:
    """The arrays of one segment, in the order in which a block writes them: the first is the ticket."""

    name: str
    views: ViewSpan
    rows: int
    block: int
    arrays: dict[str, ArraySpec] = field(hash=False)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block)

    def block_rows(self, block: int) -> tuple[int, int]:
        """Positions of a block as (start, stop): its first, and the one after its last."""
        return block * self.block, min((block + 1) * self.block, self.rows)

    @property
    def rowwise(self) -> list[str]:
        """Names of the arrays that have an entry for each row."""
        return [name for name, spec in self.arrays.items() if spec.block_axis is not None]

    def arrays_of(self, block: int) -> dict[str, ArraySpec]:
        """The arrays that have a shard in this block: canary and class means lie in block 0 only."""
        return {name: spec for name, spec in self.arrays.items() if spec.block_axis is not None or block == 0}

    def commit_key(self, block: int) -> str:
        return f"kdcache/{self.name}/commits/{block // 1000:03d}/{block:06d}.json"

    @property
    def commits_prefix(self) -> str:
        return f"kdcache/{self.name}/commits"

    def commits_file(self, digest: str) -> str:
        """Key of the file that holds all commits, named by the first 32 hex digits of its sha256."""
        return f"kdcache/{self.name}/commits-{digest[:32]}.jsonl"

    @property
    def record(self) -> str:
        return f"kdcache/{self.name}/segment.json"


def segment_name(views: ViewSpan) -> str:
    """Directory name of the segment that holds these views."""
    return f"views-{views.start:05d}-{views.stop:05d}"


def seal_key(content_id: str) -> str:
    """Key of a seal, which is named by the first 32 hex digits of its content id."""
    return f"kdcache/seals/{content_id[:32]}.json"


def _row_shapes(identity: Identity) -> dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Array name -> (dtype, axes in front of the positions, axes behind them), ticket first."""
    encoding, classes = identity.encoding, identity.teacher.classes
    rows: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {}
    if encoding.k is None:
        rows["logits"] = ("float16", (), (classes,))
    else:
        rows["classes"] = (class_dtype(classes), (), (encoding.k,))
        if encoding.k > 1:
            ranks = (encoding.k - 1,)
            rows["gaps"] = ("uint16" if encoding.quantisation == "high" else "uint8", *_gap_axes(ranks, encoding))
        rows["tail"] = ("int16", (3,), ())
        rows["label"] = ("uint16", (), () if identity.plan.mix == "none" else (2,))
    if encoding.features:
        rows["features"] = ("float16", (), (encoding.features,))
    rows["pixels"] = ("uint8", (), ())
    return rows


def _gap_axes(ranks: tuple[int, ...], encoding: Encoding) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of the gaps in front of the positions, and behind them. Packed gaps of one rank lie together."""
    return (ranks, ()) if encoding.packing == "residuals" else ((), ranks)


def _product(values: tuple[int, ...]) -> int:
    product = 1
    for value in values:
        product *= value
    return product


def block_size(identity: Identity, views: ViewSpan) -> int:
    """Rows of a block: the largest power of two up to 8,192 with at most 64 MB a shard, at most 32 MB a chunk and at
    least 64 blocks; never under 64."""
    widest = max(WIDTH[dtype] * _product(front + back) for dtype, front, back in _row_shapes(identity).values())
    limit = min(
        BLOCK_MAX, SHARD_BYTES // (len(views) * widest), CHUNK_BYTES // widest, identity.dataset.rows // BLOCKS_WANTED
    )
    return max(BLOCK_MIN, 1 << max(limit, 1).bit_length() - 1)


def segment_layout(identity: Identity, views: ViewSpan) -> SegmentLayout:
    """The layout of the segment that holds some views of a store."""
    rows, name = identity.dataset.rows, segment_name(views)
    block = block_size(identity, views)
    arrays = {}
    for array, (dtype, front, back) in _row_shapes(identity).items():
        shape = (len(views), *front, rows, *back)
        shard = (len(views), *front, block, *back)
        by_rank = array == "gaps" and bool(front)
        arrays[array] = ArraySpec(f"{name}/{array}", shape, dtype, shard, (1, *shard[1:]), 1 + len(front), by_rank)
    canary = (len(views), min(CANARY_ROWS, rows), 3, 8, 8)
    arrays["canary"] = ArraySpec(f"{name}/canary", canary, "uint8", canary, (1, *canary[1:]))
    if identity.encoding.class_means:
        means = (1, identity.teacher.classes)
        arrays["class_means"] = ArraySpec(f"{name}/class_means", means, "float32", means, means)
    return SegmentLayout(name, views, rows, block, arrays)


def plain_array(path: str, shape: tuple[int, ...], dtype: str) -> ArraySpec:
    """An array of the store as a whole (order, labels, head): plain chunks along the first axis."""
    return ArraySpec(path, shape, dtype, None, (min(shape[0], PLAIN_CHUNK), *shape[1:]))


def order_spec(rows: int) -> ArraySpec:
    return plain_array("order", (rows,), "uint32" if rows <= 2**32 else "uint64")


def labels_spec(rows: int) -> ArraySpec:
    return plain_array("labels", (rows,), "int32")


def group_bytes() -> bytes:
    """zarr.json of the root, of each segment and of the head."""
    return canonical_json({"zarr_format": 3, "node_type": "group", "attributes": {}})


def describe_segment(layout: SegmentLayout, identity_digest: str) -> dict[str, Any]:
    """The dict of segment.json. A segment digest covers it and the commits."""
    return {
        "identity": identity_digest,
        "views": [layout.views.start, layout.views.stop],
        "block": layout.block,
        "arrays": {name: spec.metadata() for name, spec in layout.arrays.items()},
    }


def segment_digest(layout: SegmentLayout, identity_digest: str, commits_digest: str) -> str:
    """The segment digest that a seal lists, from the segment's layout and the sha256 of its commits."""
    return sha256_hex(canonical_json({"segment": describe_segment(layout, identity_digest), "commits": commits_digest}))
