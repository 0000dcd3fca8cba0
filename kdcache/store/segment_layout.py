"""The layout of a segment follows from identity and views alone: its arrays, and the rows of its blocks.

Shape letters: Vs views of a segment, N positions, K kept classes, C classes, L labels a row (2 under mixing), D width.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isqrt

from kdcache.base.arrays import WIDTH
from kdcache.base.limits import VIEWS_MAX
from kdcache.base.tap_names import TAP, TapName, placed_shape
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError
from kdcache.labels.encoding import Encoding, RowArray, Tap
from kdcache.places.place import Place
from kdcache.store.array_spec import BLOCK_MAX, ArraySpec
from kdcache.store.layout import SegmentLayout, segment_name, segment_record
from kdcache.store.manifest import BLOCK_MIN, Identity

BLOCKS_WANTED = 64
ROWS_WANTED = 2048  # of a block by rule 2, (position, view) pairs: whole batches of a device, and few small files
SHARD_BYTES = 64_000_000
CHUNK_BYTES = 32_000_000
CANARY_ROWS = 64
OUTPUT_BYTES = 256_000_000  # of 64 rows of a tap, all views of a segment: the least that a writer holds
PIXELS = "low byte of xxh3-64 over the view that the teacher saw"
CONTENTS = "content fingerprint of each sample: low 32 bits of xxh3-64 over it as it lies in its source"
CANARY = "thumbnails of the first positions' views"


def row_arrays(identity: Identity) -> dict[str, RowArray]:
    """The arrays that have an entry for each row, in the order in which a block writes them."""
    encoding = identity.encoding
    return {**encoding.arrays(identity.space), **encoding.outputs, "pixels": RowArray("uint8", PIXELS)}


def read_arrays(layout: SegmentLayout, encoding: Encoding, *, features: bool, taps: Sequence[str]) -> list[str]:
    """The arrays of a row that are read: those of soft labels and pixels, and of layer outputs those asked for. Raises
    MissingBlockError for a tap that was not kept."""
    wanted = [*(["features"] if features else []), *map(encoding.tap_array, taps)]
    unread = encoding.outputs.keys() - set(wanted)
    return [name for name in layout.rowwise if name not in unread]


def recorded_views(folder: Place) -> list[ViewSpan]:
    """The views of each segment that has a record in a store's folder, ascending, by listing."""
    spans = []
    for name in folder.folders("kdcache"):
        ends = [int(part) for part in name.split("-")[1:] if part.isdecimal()]
        if (
            len(ends) == 2
            and ends[0] < ends[1] <= VIEWS_MAX
            and name == segment_name(views := ViewSpan(ends[0], ends[1]))
        ):
            spans += [views] if folder.size(segment_record(views)) is not None else []
    return sorted(spans)


def require_apart(folder: Place, spans: Sequence[ViewSpan]) -> None:
    """Raises DamagedError where two segments of a store, in ascending order, have a view in common: no seal can list
    both."""
    for views, next_views in pairwise(spans):
        if views.overlaps(next_views):
            names = f"{segment_name(views)} and {segment_name(next_views)}"
            records = f"{folder.path(segment_record(views))} or {folder.path(segment_record(next_views))}"
            raise DamagedError(
                f"{folder.root} has two segments with views in common, {names}, which two extractions made at once; "
                f"delete the record of one, {records}, and extract again"
            )


def require_alone(folder: Place, views: ViewSpan) -> None:
    """Take back the record of a segment that was made just now, where another process has made one of some of its views
    meanwhile; then InvalidInputError is raised. Of two that see one another each does so."""
    others = (span for span in recorded_views(folder) if span != views and span.overlaps(views))
    if (other := next(others, None)) is not None:
        folder.delete(segment_record(views))
        problem = f"views {views} overlap views {other}, which another process has begun to extract to {folder.root}"
        raise InvalidInputError(f"{problem}; let it finish, then extract views that the store lacks")


def require_small_taps(identity: Identity, views: ViewSpan) -> None:
    """Raises InvalidInputError for a tap of which 64 rows in all views take more than 256 MB, which a writer holds."""
    for tap in identity.encoding.taps:
        row_bytes = identity.encoding.outputs[identity.encoding.tap_array(tap.name)].row_bytes
        size = BLOCK_MIN * len(views) * row_bytes
        if size > OUTPUT_BYTES:
            shape, count = " x ".join(map(str, tap.shape)), OUTPUT_BYTES // (BLOCK_MIN * row_bytes)
            ways = [f"keep a pooled output, such as --keep {TAP}{name}"] if (name := _pooled_name(tap, views)) else []
            ways += [f"extract fewer views at a time, --views {views.start}:{views.start + count}"] if count else []
            raise InvalidInputError(
                f"tap {tap.name} of {shape} takes {size} bytes in 64 rows of {len(views)} views, allowed are "
                f"{OUTPUT_BYTES}; {', or '.join(ways) or 'keep another layer'}"
            )


def _pooled_name(tap: Tap, views: ViewSpan) -> str:
    """The tap of the same layer that is pooled to the largest square, or the most tokens, that fits; "" for none."""
    layer, shape = TapName.parse(tap.name).layer, tap.shape
    if len(shape) not in (2, 3):
        return ""
    channels, *_ = placed_shape(shape)
    places = OUTPUT_BYTES // (BLOCK_MIN * len(views) * channels * WIDTH["float16"])
    if len(shape) == 2:
        return f"{layer}@1x{places}" if places else ""
    side = min(isqrt(places), *shape[1:])
    return f"{layer}@{side}x{side}" if side else ""


def block_size(identity: Identity, views: ViewSpan) -> int:
    """Positions of a block, a power of two, never under 64, nor under a sequence.

    Rule 1: the largest up to 8,192 with at most 64 MB a shard, at most 32 MB a chunk and at least 64 blocks. Rule 2:
    where that is larger, the least with 2,048 rows (position, view) or all positions, within the same bytes.
    """
    rows = identity.dataset.rows
    widest = max(array.row_bytes for array in row_arrays(identity).values())
    wanted = rows // BLOCKS_WANTED
    if identity.encoding.block_rule == 2:
        wanted = max(wanted, min(_power_from(-(-ROWS_WANTED // len(views))), _power_from(rows)))
    limit = min(BLOCK_MAX, SHARD_BYTES // (len(views) * widest), CHUNK_BYTES // widest, wanted)
    return max(BLOCK_MIN, identity.dataset.sequence, 1 << max(limit, 1).bit_length() - 1)


def _power_from(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


def segment_layout(identity: Identity, views: ViewSpan) -> SegmentLayout:
    """The layout of the segment that holds some views of a store."""
    rows, name = identity.dataset.rows, segment_name(views)
    block = block_size(identity, views)
    arrays: dict[str, ArraySpec] = {}
    for array, row in row_arrays(identity).items():
        shape = (len(views), *row.front, rows, *row.back)
        shard = (len(views), *row.front, block, *row.back)
        chunk, axis = (1, *shard[1:]), 1 + len(row.front)
        path = f"{name}/{array}"
        arrays[array] = ArraySpec(path, shape, row.dtype, shard, chunk, axis, row.by_rank, row.text, row.struck)
    canary = (len(views), min(CANARY_ROWS, rows), 3, 8, 8)
    if identity.dataset.sequence == 1:  # texts have no thumbnails
        arrays["canary"] = ArraySpec(f"{name}/canary", canary, "uint8", canary, (1, *canary[1:]), text=CANARY, struck=0)
    for array, once in identity.encoding.segment_arrays(identity.space).items():
        arrays[array] = ArraySpec(f"{name}/{array}", once.shape, once.dtype, once.shape, once.shape, text=once.text)
    if identity.encoding.contents is not None:
        path, shard = f"{name}/contents", (1, block)
        arrays["contents"] = ArraySpec(path, (1, rows), "uint32", shard, shard, 1, text=CONTENTS, by_view=False)
    return SegmentLayout(name, views, rows, block, arrays)
