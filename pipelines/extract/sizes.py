"""Sizes of an extraction, known before its first block: blocks, files, bytes, and the memory that it may take."""

from math import prod

import numpy as np

from kdcache.base.records import Record
from kdcache.base.units import bytes_text
from kdcache.store.array_spec import ArraySpec
from kdcache.store.layout import SegmentLayout
from kdcache.store.manifest import Identity

SMALL_FILES = 11  # of a store: manifest, seals, order, labels and the groups' metadata
HEAD_FILES = 5  # a group, and two arrays of one chunk


class Sizes(Record):
    """Sizes of the views that an extraction adds. `block`: positions of a block. Bytes are those of the arrays before
    compression: `label_bytes` of soft labels and fingerprints, `output_bytes` of features and taps. `memory_bound`: of
    the main process, None on Dask, whose workers have their own."""

    block: int
    blocks: int
    views: int
    files: int
    label_bytes: int
    output_bytes: int
    memory_bound: int | None = None

    @property
    def text(self) -> str:
        """One line for people."""
        size = f"{self.blocks:,} blocks of {self.block:,} positions x {self.views} views, {self.files:,} files, before "
        size += f"compression {bytes_text(self.label_bytes)} of soft labels"
        if self.output_bytes:
            size += f" and {outputs_text(self.output_bytes, self.label_bytes)}"
        memory = "" if self.memory_bound is None else f"; memory at most {bytes_text(self.memory_bound)}"
        return size + memory


def sizes(identity: Identity, layout: SegmentLayout, memory_bound: int | None = None) -> Sizes:
    """The sizes of a segment's extraction."""
    outputs = identity.encoding.outputs
    total = sum(map(_bytes, layout.arrays.values()))
    output_bytes = sum(_bytes(layout.arrays[name]) for name in outputs)
    return Sizes(
        block=layout.block,
        blocks=layout.blocks,
        views=len(layout.views),
        files=file_count(identity, layout),
        label_bytes=total - output_bytes,
        output_bytes=output_bytes,
        memory_bound=memory_bound,
    )


def file_count(identity: Identity, layout: SegmentLayout) -> int:
    """Files of a store with one segment: shards and commits of its blocks, an array's metadata, and the small ones."""
    block_files = sum(len(layout.arrays_of(block)) + 1 for block in range(layout.blocks))  # its shards and its commit
    return SMALL_FILES + HEAD_FILES * bool(identity.encoding.head) + len(layout.arrays) + block_files


def outputs_text(output_bytes: float, label_bytes: float) -> str:
    """Features and taps beside the soft labels: `3.2 GB of features and taps, 41x the soft labels`."""
    return f"{bytes_text(output_bytes)} of features and taps, {output_bytes / max(label_bytes, 1):.3g}x the soft labels"


def _bytes(spec: ArraySpec) -> int:
    return prod(spec.shape) * np.dtype(spec.dtype).itemsize
