"""The manifest of a store, and the parts of which its segments are opened: those of a seal, or all, by listing."""

from collections.abc import Set
from contextlib import suppress

from kdcache.base.canonical import canonical_json
from kdcache.base.limits import MANIFEST_LIMIT, ZARR_LIMIT
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, FormatError
from kdcache.places.place import Place
from kdcache.store.layout import MANIFEST, SegmentLayout, describe_segment
from kdcache.store.manifest import Identity, Manifest, parse_manifest
from kdcache.store.partial import NOTHING, read_partial
from kdcache.store.sealed_segment import SealedSegment
from kdcache.store.segment_layout import recorded_views, require_apart, segment_layout

# Of one segment: its layout, the sha256 of its commits where a seal gives it, the arrays that a copy was made without.
Part = tuple[SegmentLayout, str | None, Set[str]]


def read_manifest(folder: Place) -> Manifest:
    """The manifest of the store at a place. Raises StoreNotFoundError where there is none."""
    data = folder.get(MANIFEST, limit=MANIFEST_LIMIT)
    if data is None:
        raise folder.nothing(MANIFEST)
    return parse_manifest(data, str(folder.path(MANIFEST)))


def sealed_parts(
    folder: Place, identity: Identity, entries: tuple[SealedSegment, ...]
) -> tuple[list[Part], tuple[SealedSegment, ...]]:
    """The parts of a seal's segments, without listing; and the entries of those that the copy was made without."""
    record = read_partial(folder)
    absent, names = record.absent(), set(record.left_out)
    left_out = tuple(entry for entry in entries if entry in names)
    here = [entry for entry in entries if entry not in names]
    return [(segment_layout(identity, e.views), e.commits, absent.get(e, set())) for e in here], left_out


def listed_parts(folder: Place, identity: Identity) -> list[Part]:
    """The parts of segments that have a record, by listing. Raises FormatError for another store's."""
    parts: list[Part] = []
    record, digest = NOTHING, identity.digest
    with suppress(DamagedError, FormatError):  # verify tells of it; until it is mended, what it left out is missing
        record = read_partial(folder)
    absent: dict[ViewSpan, set[str]] = {}
    for segment, arrays in record.absent().items():
        absent.setdefault(segment.views, set()).update(arrays)
    spans = recorded_views(folder)
    require_apart(folder, spans)
    for views in spans:
        layout = segment_layout(identity, views)
        data = folder.get(layout.record, limit=ZARR_LIMIT)
        if data is None:  # taken back just now
            continue
        if data != canonical_json(describe_segment(layout, digest)):
            path = folder.path(layout.record)
            raise FormatError(f"{path} is not what this store's manifest predicts; restore it from another copy")
        parts.append((layout, None, absent.get(views, set())))
    return parts
