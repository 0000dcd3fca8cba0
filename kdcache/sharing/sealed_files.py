"""A seal as a list of files: every key with its size and sha256, in the order in which a copy must write them.

The list is the same however files travel. Shards have the sha256 of their commits. The bytes of zarr.json, records,
commits and the seal follow from the manifest and the seal. Order, labels and head are read and compared with their
digests; their sha256 is that of the bytes that were read. Manifest and card are as they lie there now.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.limits import CARD_LIMIT, HEAD_BYTES_MAX, MANIFEST_LIMIT, METADATA_LIMIT
from kdcache.base.view_span import ViewSpan, shown_spans
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError, StoreNotFoundError
from kdcache.places.place import Place, get_optional
from kdcache.sharing.without import arrays_without, require_chosen
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
from kdcache.store.partial import NOTHING, Partial
from kdcache.store.sealed_segment import SealedSegment
from kdcache.store.seals import Seal
from kdcache.store.segment import Segment
from kdcache.store.shards import largest_shard
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_specs

LARGEST = HEAD_BYTES_MAX + METADATA_LIMIT  # bytes of a chunk of order, labels or head, at most


@dataclass(frozen=True)
class SharedFile:
    """One file of a sealed store. `data` holds its bytes where they are known without fetching them, else None."""

    key: str
    size: int
    sha256: str
    data: bytes | None = None


@dataclass(frozen=True)
class SealedListing:
    """The files of one seal, as a copy writes them in three steps.

    First `data` in any order; then `records` in any order, by which blocks and segments exist; then `last` one by one:
    manifest, card, the record of what is left out, the seal, and `latest`. `partial` is that record, `taps` names those
    of `segments` that are left out, and `taps_bytes` is the size of their shards.
    """

    identity: Identity
    seal: Seal
    segments: tuple[SealedSegment, ...]
    partial: Partial
    taps: tuple[str, ...]
    taps_bytes: int
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


def sealed_files(
    place: Place, content_id: str | None, *, views: ViewSpan | None = None, without: Sequence[str] = ()
) -> SealedListing:
    """The files of a seal (the latest where `content_id` is None), or those that some views of it need, less those of
    the taps that `without` names: `taps` or `tap:NAME`.

    A shard holds all views of its segment, so `views` must be made of whole segments. Raises StoreNotFoundError where
    there is no seal, MissingBlockError for segments and taps that this copy left out, InvalidInputError for views that
    are not whole segments and for taps that the store lacks, and DamagedError where order, labels, head or commits
    differ from the seal. Shards are not read.
    """
    store = Store.at(place, content_id)
    seal = store.seal_record
    if seal is None:
        raise StoreNotFoundError(f"{place.root} is not sealed; run: kdcache seal {place.root}")
    entries = chosen_segments(store, seal, views)
    segments = [store.segment_of(entry.views.start) for entry in entries]
    absent = arrays_without(store.identity.encoding, without, str(place.root))
    require_chosen(segments, absent)
    data = [*_whole_arrays(store), *(file for segment in segments for file in _data_files(segment, absent))]
    records = [file for segment in segments for file in _record_files(segment)]
    partial = Partial.of((entry for entry in seal.segments if entry not in entries), entries, absent)
    return SealedListing(
        store.identity,
        seal,
        entries,
        partial,
        taps=tuple(store.identity.encoding.tap_names(absent)),
        taps_bytes=sum(_bytes_of(segment, absent) for segment in segments),
        data=tuple(data),
        records=tuple(records),
        last=tuple(_last_files(store, seal, partial)),
    )


def known_file(key: str, data: bytes) -> SharedFile:
    """A file whose bytes are at hand."""
    return SharedFile(key, len(data), sha256_hex(data), data)


def chosen_segments(store: Store, seal: Seal, views: ViewSpan | None) -> tuple[SealedSegment, ...]:
    """A seal's segments, or those of some views. Raises InvalidInputError where the views are not whole segments, and
    MissingBlockError where this copy left a segment out."""
    segments = seal.segments
    if views is not None:
        views = ViewSpan.parse(views)
        segments = tuple(segment for segment in seal.segments if segment.views.within(views))
        if sum(len(segment.views) for segment in segments) != len(views):
            advice = "name whole segments, for their files hold all of their views"
            raise InvalidInputError(
                f"views {views} were asked for, {store.folder.root} has {views_of(seal.segments)}; {advice}"
            )
    if left_out := tuple(segment for segment in segments if segment in store.left_out):
        remedy = f"get them from where the store came from (kdcache pull URL {store.folder.root})"
        advice = f"{remedy}; only pull and recode take the views that are here: --views {_view_choices(store)}"
        raise MissingBlockError(f"{store.folder.root} is a partial copy without views {views_of(left_out)}; {advice}")
    return segments


def views_of(segments: Iterable[SealedSegment]) -> str:
    """Views of some segments for a message: `0:10, 10:20`."""
    return shown_spans(segment.views for segment in segments)


def _view_choices(store: Store) -> str:
    return " or ".join(str(segment.views) for segment in store.segments) or "(none)"


def _whole_arrays(store: Store) -> Iterator[SharedFile]:
    """The files of the root, order, labels and head. The arrays are compared with their digests, and the bytes that are
    read for it are hashed."""
    yield known_file("zarr.json", group_bytes())
    place = _HashingPlace(store.folder)
    reader = Store(cast(Place, place), store.manifest, store.seal_record, ())
    specs = [order_spec(store.rows), labels_spec(store.rows)]
    assert len(reader.labels) == len(reader.order)
    if store.identity.encoding.head:
        yield known_file("head/zarr.json", group_bytes())
        specs += head_specs(store.identity)
        reader.head()
    for spec in specs:
        for chunk in range(-(-spec.shape[0] // spec.chunk[0])):
            yield place.read[spec.key(chunk)]
        yield known_file(f"{spec.path}/zarr.json", spec.metadata_bytes())


def _bytes_of(segment: Segment, arrays: Set[str]) -> int:
    """The size of the shards of some arrays of a segment."""
    return sum(commit.shards[name].size for commit in segment.commits().values() for name in arrays)


def _data_files(segment: Segment, absent: Set[str]) -> Iterator[SharedFile]:
    """A segment's metadata and shards but those of some arrays, block by block, ticket first. The metadata of an absent
    array is absent too: Zarr would return zeros for it."""
    layout = segment.layout
    yield known_file(f"{layout.name}/zarr.json", group_bytes())
    for name, spec in layout.arrays.items():
        if name not in absent:
            yield known_file(f"{spec.path}/zarr.json", spec.metadata_bytes())
    for block, commit in segment.commits().items():
        for name, spec in layout.arrays_of(block).items():
            if name in absent:
                continue
            shard = commit.shards[name]
            if not 0 <= shard.size <= largest_shard(spec):
                problem = f"a commit says that {spec.key(block)} has {shard.size} bytes"
                raise DamagedError(f"{problem}, allowed are up to {largest_shard(spec)}; fetch the store again")
            yield SharedFile(spec.key(block), shard.size, shard.sha256)


def _record_files(segment: Segment) -> Iterator[SharedFile]:
    """A segment's commits as they were sealed, one by one and in one file; then the record of the segment."""
    layout, commits = segment.layout, segment.sealed_commits
    for block in commits:
        yield known_file(layout.commit_key(block), commits.record(block))
    assert segment.commits_digest is not None
    yield known_file(layout.commits_file(segment.commits_digest), commits.to_bytes())
    yield known_file(layout.record, canonical_json(describe_segment(layout, segment.identity.digest)))


def _last_files(store: Store, seal: Seal, partial: Partial) -> Iterator[SharedFile]:
    folder = store.folder
    manifest = folder.require(MANIFEST, "another process deleted it", limit=MANIFEST_LIMIT)
    if parse_manifest(manifest, str(folder.path(MANIFEST))) != store.manifest:
        problem = f"{folder.path(MANIFEST)} came twice with other contents, spoiled on the way or replaced"
        raise DamagedError(f"{problem}; run the same command again")
    yield known_file(MANIFEST, manifest)
    if (card := get_optional(folder, CARD, limit=CARD_LIMIT)) is not None:
        Card.from_bytes(card, str(folder.path(CARD)))  # a card that could not be opened again is not copied
        yield known_file(CARD, card)
    if partial != NOTHING:
        yield known_file(PARTIAL, partial.to_bytes())
    yield known_file(seal_key(seal.content_id), seal.to_bytes())
    yield known_file(LATEST_SEAL, f"{seal.content_id}\n".encode())


class _HashingPlace:
    """A place that hashes files as they are read. It fetches files whole, for some web servers know no parts."""

    def __init__(self, place: Place) -> None:
        self._inner = place
        self._files: dict[str, bytes] = {}
        self.read: dict[str, SharedFile] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def size(self, key: str) -> int | None:
        data = self._inner.get(key, limit=LARGEST)
        if data is not None:
            self._files[key] = data
        return None if data is None else len(data)

    def require(self, key: str, advice: str, *, limit: int = METADATA_LIMIT) -> bytes:
        data = self._files.pop(key, None)
        if data is None or len(data) > limit:
            data = self._inner.require(key, advice, limit=limit)
        self.read[key] = SharedFile(key, len(data), sha256_hex(data))
        return data
