"""What one seal lists, as files: every key with its size and sha256, in the order in which a copy must write them.

Independent of how files travel. Shards take their sha256 from the commits; zarr.json, records, commits and the seal
have bytes that follow from the manifest and the seal; order, labels and head are read, held against their digests, and
then known by the sha256 of the bytes that were read. Manifest and card are as they lie there now.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.limits import CARD_LIMIT, HEAD_BYTES_MAX, MANIFEST_LIMIT, METADATA_LIMIT
from kdcache.base.view_span import ViewSpan, shown_spans
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError, StoreNotFoundError
from kdcache.places.place import Place, get_optional
from kdcache.store.layout import (
    CARD,
    LATEST_SEAL,
    MANIFEST,
    PARTIAL,
    describe_segment,
    group_bytes,
    labels_spec,
    order_spec,
    seal_key,
)
from kdcache.store.manifest import Card, Identity, parse_manifest
from kdcache.store.partial import Partial
from kdcache.store.seals import Seal, SealedSegment
from kdcache.store.segment import Segment
from kdcache.store.shards import largest_shard
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_specs

LARGEST = HEAD_BYTES_MAX + METADATA_LIMIT  # bytes of a chunk of order, labels or head, at most


@dataclass(frozen=True)
class SharedFile:
    """One file of a sealed store. `data` is there where its bytes are known without fetching them."""

    key: str
    size: int
    sha256: str
    data: bytes | None = None


@dataclass(frozen=True)
class SealedListing:
    """What a copy of one seal writes, in three steps: `data` in any order, then `records` in any order (with them,
    blocks and segments exist), then `last` one by one: manifest, card, what is left out, the seal, and `latest`."""

    identity: Identity
    seal: Seal
    segments: tuple[SealedSegment, ...]
    left_out: tuple[SealedSegment, ...]
    data: tuple[SharedFile, ...]
    records: tuple[SharedFile, ...]
    last: tuple[SharedFile, ...]

    @property
    def content_id(self) -> str:
        return self.seal.content_id

    @property
    def files(self) -> tuple[SharedFile, ...]:
        return (*self.data, *self.records, *self.last)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def sealed_files(place: Place, content_id: str | None, *, views: ViewSpan | None = None) -> SealedListing:
    """Every file of what a seal lists (the latest where `content_id` is None), or of the segments of some views of it.

    A shard holds all views of its segment, so `views` must be made of whole segments. Raises StoreNotFoundError where
    there is no seal, MissingBlockError where this copy left out what is asked for, InvalidInputError for other views,
    and DamagedError where order, labels, head or commits are not what the seal says. Shards are not looked at.
    """
    store = Store.at(place, content_id)
    seal = store.seal_record
    if seal is None:
        raise StoreNotFoundError(f"{place.root} is not sealed; run: kdcache seal {place.root}")
    chosen = chosen_segments(store, seal, views)
    segments = [store.segment_of(each.views.start) for each in chosen]
    data = [*_wholes(store), *(file for segment in segments for file in _data(segment))]
    records = [file for segment in segments for file in _records(segment)]
    left_out = tuple(each for each in seal.segments if each not in chosen)
    return SealedListing(
        store.identity, seal, chosen, left_out, tuple(data), tuple(records), tuple(_last(store, seal, left_out))
    )


def known(key: str, data: bytes) -> SharedFile:
    """A file whose bytes are at hand."""
    return SharedFile(key, len(data), sha256_hex(data), data)


def chosen_segments(store: Store, seal: Seal, views: ViewSpan | None) -> tuple[SealedSegment, ...]:
    """A seal's segments, or those of some views. Raises InvalidInputError where these are not whole segments,
    MissingBlockError where this copy left them out."""
    chosen = seal.segments
    if views is not None:
        views = ViewSpan.parse(views)
        chosen = tuple(segment for segment in seal.segments if segment.views.within(views))
        if sum(len(segment.views) for segment in chosen) != len(views):
            advice = "name whole segments, for their files hold all of their views"
            raise InvalidInputError(
                f"views {views} were asked for, {store.folder.root} has {views_of(seal.segments)}; {advice}"
            )
    if missing := tuple(each for each in chosen if each in store.left_out):
        fetch = f"get them from where the store came from (kdcache pull URL {store.folder.root})"
        advice = f"{fetch}; only pull and recode take the views that are here: --views {_held(store)}"
        raise MissingBlockError(f"{store.folder.root} is a partial copy without views {views_of(missing)}; {advice}")
    return chosen


def views_of(segments: Iterable[SealedSegment]) -> str:
    """Views of some segments for a message: `0:10, 10:20`."""
    return shown_spans(segment.views for segment in segments)


def _held(store: Store) -> str:
    return " or ".join(str(segment.views) for segment in store.segments) or "(none)"


def _wholes(store: Store) -> Iterator[SharedFile]:
    """The root, and order, labels and head: held against their digests while the bytes that were read are hashed."""
    yield known("zarr.json", group_bytes())
    noted = _Noted(store.folder)
    reader = Store(cast(Place, noted), store.manifest, store.seal_record, ())
    specs = [order_spec(store.rows), labels_spec(store.rows)]
    assert len(reader.labels) == len(reader.order)
    if store.identity.encoding.head:
        yield known("head/zarr.json", group_bytes())
        specs += head_specs(store.identity)
        reader.head()
    for spec in specs:
        for chunk in range(-(-spec.shape[0] // spec.chunk[0])):
            yield noted.read[spec.key(chunk)]
        yield known(f"{spec.path}/zarr.json", spec.metadata_bytes())


def _data(segment: Segment) -> Iterator[SharedFile]:
    """A segment's metadata and shards, block by block, ticket first."""
    layout = segment.layout
    yield known(f"{layout.name}/zarr.json", group_bytes())
    for spec in layout.arrays.values():
        yield known(f"{spec.path}/zarr.json", spec.metadata_bytes())
    for block, commit in segment.commits().items():
        for name, spec in layout.arrays_of(block).items():
            shard = commit.shards[name]
            if not 0 <= shard.size <= largest_shard(spec):
                said = f"a commit says that {spec.key(block)} has {shard.size} bytes"
                raise DamagedError(f"{said}, allowed are up to {largest_shard(spec)}; fetch the store again")
            yield SharedFile(spec.key(block), shard.size, shard.sha256)


def _records(segment: Segment) -> Iterator[SharedFile]:
    """A segment's commits, as they were sealed, one by one and in one file; then the record of the segment."""
    layout, sealed = segment.layout, segment.sealed_commits
    for block in sealed:
        yield known(layout.commit_key(block), sealed.record(block))
    assert segment.commits_digest is not None
    yield known(layout.commits_file(segment.commits_digest), sealed.to_bytes())
    yield known(layout.record, canonical_json(describe_segment(layout, segment.identity.digest)))


def _last(store: Store, seal: Seal, left_out: tuple[SealedSegment, ...]) -> Iterator[SharedFile]:
    folder = store.folder
    manifest = folder.require(MANIFEST, "another process deleted it", limit=MANIFEST_LIMIT)
    if parse_manifest(manifest, str(folder.path(MANIFEST))) != store.manifest:
        said = f"{folder.path(MANIFEST)} came twice with other contents, spoiled on the way or replaced"
        raise DamagedError(f"{said}; run the same command again")
    yield known(MANIFEST, manifest)
    if (card := get_optional(folder, CARD, limit=CARD_LIMIT)) is not None:
        Card.from_bytes(card, str(folder.path(CARD)))  # what could not be opened again is not copied
        yield known(CARD, card)
    if left_out:
        yield known(PARTIAL, Partial(left_out=left_out).to_bytes())
    yield known(seal_key(seal.content_id), seal.to_bytes())
    yield known(LATEST_SEAL, f"{seal.content_id}\n".encode())


class _Noted:
    """A place whose bytes are hashed as they are read; files are fetched whole: some web servers know no parts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._held: dict[str, bytes] = {}
        self.read: dict[str, SharedFile] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)

    def size(self, key: str) -> int | None:
        data = self._place.get(key, limit=LARGEST)
        if data is not None:
            self._held[key] = data
        return None if data is None else len(data)

    def require(self, key: str, advice: str, *, limit: int = METADATA_LIMIT) -> bytes:
        data = self._held.pop(key, None)
        if data is None or len(data) > limit:
            data = self._place.require(key, advice, limit=limit)
        self.read[key] = SharedFile(key, len(data), sha256_hex(data))
        return data
