"""The memory that extracting takes: a bound that follows from sizes alone."""

from dataclasses import dataclass

import numpy as np

from kdcache.networks.forward_memory import ForwardMemory
from kdcache.store.array_spec import ArraySpec
from kdcache.store.layout import SegmentLayout
from kdcache.store.manifest import Identity
from kdcache.store.plan import GROUP

IN_FLIGHT = 2  # blocks that may wait for the writer, with the one that it writes
SLACK = 64_000_000  # allocator, threads, Python's own objects
NO_FORWARD = ForwardMemory()


@dataclass(frozen=True)
class LoopMemory:
    """Bytes that the block loop takes, over those in use before it (data set, teacher, and the checks' forward).

    drawing: a batch of drawn views, the request that is drawn or taken apart, and the batch as f32.
    answers: reduced rows of the block that the teacher answers and of those in flight.
    reduction: f32 tensors [batch, classes], and [batch, classes of the network] where they differ.
    outputs: features and taps of a batch, as f32 and narrowed to f16, with a third copy of the widest.
    writing: the arrays of one block as integers, shards that are being compressed, wider intermediates of one view.
    forward: the network's own tensors, where a batch has more rows than the checks asked about at once.
    """

    drawing: int
    answers: int
    reduction: int
    outputs: int
    writing: int
    forward: int

    @property
    def total(self) -> int:
        parts = (self.drawing, self.answers, self.reduction, self.outputs, self.writing, self.forward)
        return sum(parts) + SLACK


def loop_memory(
    layout: SegmentLayout,
    identity: Identity,
    *,
    view_bytes: int,
    request: tuple[int, int],
    batch_rows: int,
    forward: ForwardMemory = NO_FORWARD,
) -> LoopMemory:
    """The bound for a layout; `request` is the numbers of rows and views that are drawn together, `forward` what was
    measured of the checks' one.

    A block has at most 64 MB of its widest array, unless 64 rows exceed that. So beyond that
    size the bound grows neither with the data set nor with views or classes.
    """
    positions = min(layout.block, layout.rows)
    rows = positions * len(layout.views)
    arrays = {name: spec for name, spec in layout.arrays.items() if spec.block_axis is not None}
    stored_bytes = sum(_row_bytes(spec) for spec in arrays.values())
    reduced_bytes, encoding_bytes = identity.encoding.scratch(identity.space)
    return LoopMemory(
        drawing=(batch_rows + 2 * request[0] * request[1]) * view_bytes + 4 * batch_rows * view_bytes,
        answers=(IN_FLIGHT + 1) * rows * (stored_bytes + reduced_bytes),
        reduction=8 * batch_rows * max(identity.teacher.classes, len(identity.teacher.class_map)) * 4,
        outputs=batch_rows * 4 * sum(array.row_bytes for array in identity.encoding.outputs.values()),
        writing=4 * rows * stored_bytes + positions * encoding_bytes,
        forward=forward.beyond(min(batch_rows, -(-rows // GROUP) * GROUP)),
    )


def _row_bytes(spec: ArraySpec) -> int:
    assert spec.block_axis is not None
    return int(np.prod(spec.shape[1:])) // spec.shape[spec.block_axis] * np.dtype(spec.dtype).itemsize
