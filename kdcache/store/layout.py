"""The layout of format 1: where every array lies and its exact Zarr v3 metadata, pure functions of identity and views.

Shape letters: Vs views of a segment, N positions, K kept classes, C classes, L labels a row (2 under mixing), D width.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.store.array_spec import ArraySpec, plain_array

MANIFEST = "kdcache/manifest.json"
CARD = "kdcache/card.json"
PARTIAL = "kdcache/partial.json"
LATEST_SEAL = "kdcache/seals/latest"


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
        return [name for name, spec in self.arrays.items() if spec.block_axis is not None and spec.by_view]

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
        return segment_record(self.views)


def segment_name(views: ViewSpan) -> str:
    """Directory name of the segment that holds these views."""
    return f"views-{views.start:05d}-{views.stop:05d}"


def enclosing_store(path: Path) -> Path | None:
    """The store of this machine in whose folder a path lies, None where it lies in none."""
    return next((folder for folder in path.absolute().parents if (folder / MANIFEST).is_file()), None)


def segment_record(views: ViewSpan) -> str:
    """Key of the record without which a segment does not exist."""
    return f"kdcache/{segment_name(views)}/segment.json"


def seal_key(content_id: str) -> str:
    """Key of a seal, which is named by the first 32 hex digits of its content id."""
    return f"kdcache/seals/{content_id[:32]}.json"


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
