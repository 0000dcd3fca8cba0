"""A store: create it, open it, read soft labels by view and positions, add views, seal it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kdcache.base.computed_once import computed_once
from kdcache.base.limits import CARD_LIMIT
from kdcache.base.records import require_equal
from kdcache.base.view_span import ViewSpan, shown_spans
from kdcache.errors import DamagedError, InvalidInputError, MissingBlockError, StoreNotFoundError
from kdcache.labels.soft_labels import SoftLabels
from kdcache.places.opening import open_folder, open_place
from kdcache.places.place import Place, get_optional
from kdcache.store.all_logits import all_logits
from kdcache.store.array_spec import plain_array
from kdcache.store.commits import Commit
from kdcache.store.layout import CARD, LATEST_SEAL, MANIFEST, group_bytes, labels_spec, order_spec
from kdcache.store.listing import listed_parts, read_manifest, sealed_parts
from kdcache.store.manifest import Card, Identity, Manifest, Provenance, parse_manifest
from kdcache.store.plan import partners_of
from kdcache.store.read_ahead import reading
from kdcache.store.reading import EncodedRows
from kdcache.store.sealed_segment import SealedSegment
from kdcache.store.seals import Seal, read_seal, split_pin, write_seal
from kdcache.store.segment import Segment
from kdcache.store.segment_layout import read_arrays, require_small_taps, segment_layout
from kdcache.store.shards import put_plain
from kdcache.store.whole_arrays import check_order, head_digest, read_head, read_labels, read_order
from kdcache.store.writing import writing_store

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


class Store:
    """A store holds one teacher's answers to one data set split under one view plan. Readers take no lock and write
    nothing.

    Examples:
        >>> store.rows, store.every_view, len(store.content_id)
        (300, (0, 1), 64)
    """

    def __init__(
        self,
        folder: Place,
        manifest: Manifest,
        seal: Seal | None,
        segments: tuple[Segment, ...],
        left_out: tuple[SealedSegment, ...] = (),
    ) -> None:
        self.folder, self.manifest, self.seal_record, self.segments = folder, manifest, seal, segments
        self.left_out = left_out  # segments of the seal that this copy does not hold

    def __repr__(self) -> str:
        views, seal = shown_spans(segment.views for segment in self.segments) or "none", self.content_id or "none"
        return f"Store({str(self.folder.root)!r}, {self.rows} rows, views {views}, seal {seal[:8]})"

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        identity: Identity,
        *,
        order: Array,
        labels: Array,
        provenance: Provenance,
        head: dict[str, Array] | None = None,
    ) -> Self:
        """Make a store and open it for writing; a store of the same identity that stands there is opened.

        `order` [N] dataset index of each position, `labels` [N] hard labels by position (-1 none), `head` weight [C, D]
        and bias [C] f32. Raises MismatchError, naming both values, where a store of another identity has the place.
        """
        folder = open_folder(path)
        check_order(order, labels, identity)
        if bool(head) != bool(identity.encoding.head):
            width = identity.encoding.head
            raise InvalidInputError(f"the identity keeps a head of width {width}, given was {list(head or ())}")
        data = Manifest(identity=identity, provenance=provenance).to_bytes()
        parse_manifest(data, str(folder.path(MANIFEST)))  # a manifest that could not be opened again is not written
        folder.put_new(MANIFEST, data)
        current = read_manifest(folder)
        require_equal(current.identity, identity, f"{folder.root} belongs to another extraction:", _ADVICE)
        folder.put_same("zarr.json", group_bytes())
        put_plain(folder, order_spec(len(order)), order.astype(order_spec(len(order)).dtype))
        put_plain(folder, labels_spec(len(labels)), labels.astype(np.int32))
        for name, values in (head or {}).items():
            folder.put_same("head/zarr.json", group_bytes())
            put_plain(folder, plain_array(f"head/{name}", values.shape, "float32"), values.astype(np.float32))
        return cls.open_for_writing(path)

    @classmethod
    def open(cls, url: str | os.PathLike[str], expect: Identity | None = None) -> Self:
        """Open a store for reading; `url` may end in `@content-id`. A sealed store shows its seal's segments alone.

        Raises StoreNotFoundError, FormatError, DamagedError, and MismatchError where the identity is not `expect`.

        Examples:
            >>> Store.open(f"digits.kd@{store.content_id}").rows  # by its seal
            300
        """
        path, content_id = split_pin(os.fspath(url))
        return cls.at(open_place(path), content_id, expect)

    @classmethod
    def at(cls, folder: Place, content_id: str | None = None, expect: Identity | None = None) -> Self:
        """Open the store at a place, as `open` does."""
        folder = reading(folder)
        manifest = read_manifest(folder)
        if expect is not None:
            require_equal(manifest.identity, expect, f"{folder.root} is not the store that was expected:", _ADVICE)
        seal = read_seal(folder, manifest.identity, content_id)
        if seal is None and not folder.lists:
            problem = (
                f"{folder.path(LATEST_SEAL)} is not there: the store is not sealed, and its blocks cannot be listed"
            )
            raise StoreNotFoundError(f"{problem}; run kdcache seal on the store's folder, and publish it again")
        if seal is None:
            return cls.listed(folder)
        parts, left_out = sealed_parts(folder, manifest.identity, seal.segments)
        return cls(folder, manifest, seal, tuple(Segment(folder, manifest.identity, *part) for part in parts), left_out)

    @classmethod
    def open_for_writing(cls, path: str | os.PathLike[str]) -> Self:
        """Open the store at a path for writing: all that lies there now, sealed or not, by listing."""
        return cls.listed(open_folder(path))

    @classmethod
    def listed(cls, folder: Place) -> Self:
        """Open the store at a place: all that lies there now, sealed or not, by listing."""
        manifest = read_manifest(folder)
        parts = listed_parts(folder, manifest.identity)
        return cls(folder, manifest, None, tuple(Segment(folder, manifest.identity, *part) for part in parts))

    @property
    def identity(self) -> Identity:
        """The identity, which must match; see `Identity`."""
        return self.manifest.identity

    @property
    def rows(self) -> int:
        """The number N of positions."""
        return self.identity.dataset.rows

    @property
    def content_id(self) -> str | None:
        """sha256 of the seal that this store was opened by; None where it was opened without one."""
        return None if self.seal_record is None else self.seal_record.content_id

    @property
    def every_view(self) -> tuple[int, ...]:
        """Every view that has a segment, ascending."""
        return tuple(sorted(view for segment in self.segments for view in segment.views))

    @computed_once
    def order(self) -> IntArray:
        """[N] i64 dataset index of each position, checked against the manifest."""
        return read_order(self.folder, self.identity)

    @computed_once
    def labels(self) -> IntArray:
        """[N] i64 hard label of each position, -1 for none, checked against the manifest."""
        return read_labels(self.folder, self.identity, self.order)

    @property
    def card(self) -> Card:
        """The card: name, licence and notes that people wrote about the store."""
        data = get_optional(self.folder, CARD, limit=CARD_LIMIT)
        return Card() if data is None else Card.from_bytes(data, str(self.folder.path(CARD)))

    def write_card(self, card: Card) -> None:
        """Replace the store's card; no hash covers it."""
        data = card.to_bytes()
        if len(data) > CARD_LIMIT:
            raise InvalidInputError(f"the card has {len(data)} bytes, allowed are {CARD_LIMIT}; write shorter notes")
        with writing_store(self.folder, self.identity) as folder:
            folder.replace(CARD, data)

    def head(self) -> dict[str, Array]:
        """The teacher's classifier, weight [C, D] and bias [C] f32. Raises MissingBlockError where it was not kept."""
        if not self.identity.encoding.head:
            raise MissingBlockError(f"{self.folder.root} holds no head; extract with --keep head")
        head, expected = read_head(self.folder, self.identity), self.seal_record.head if self.seal_record else None
        if expected is not None and (digest := head_digest(head)) != expected:
            raise DamagedError(f"{self.folder.path('head')} has digest {digest}, the seal says {expected}; restore it")
        return head

    def segment_of(self, view: int) -> Segment:
        """The segment that holds a view.

        Raises InvalidInputError, naming the store's segments, for a view that it has not, and MissingBlockError for a
        view that this copy left out.
        """
        for segment in self.segments:
            if view in segment.views:
                return segment
        if spans := shown_spans(segment.views for segment in self.left_out if view in segment.views):
            problem = f"is a partial copy: view {view} is of views {spans}, which were not pulled"
            raise MissingBlockError(f"{self.folder.root} {problem}; get them with kdcache pull from where it came from")
        names = ", ".join(segment.layout.name for segment in self.segments) or "none"
        raise InvalidInputError(
            f"{self.folder.root} has no view {view}; it has {names}; add views with kdcache extract"
        )

    def load(
        self, view: int, positions: npt.ArrayLike, *, features: bool = False, taps: Sequence[str] = ()
    ) -> EncodedRows:
        """Rows of one view at `positions` [B], as stored: soft labels and pixel fingerprints; on request features, and
        taps by name, see `EncodedRows.tap`.
        """
        segment, encoding = self.segment_of(view), self.identity.encoding
        if features and not encoding.features:
            raise MissingBlockError(f"{self.folder.root} holds no features; extract with --keep features")
        names = read_arrays(segment.layout, encoding, features=features, taps=taps)
        rows = segment.read(view, np.asarray(positions, dtype=np.int64), names)
        if not self.identity.encoding.HOLDS_LABEL:
            rows.loose["hard"] = self.hard_labels(view, rows.positions)
        return rows

    def read(self, view: int, positions: npt.ArrayLike) -> SoftLabels:
        """Soft labels (numpy) of one view at `positions` [B].

        Raises MissingBlockError for a block that is not committed and DamagedError for one that is not whole; neither
        is read as zeros.

        Examples:
            >>> store.read(view=1, positions=range(100)).log_probs(2.0).shape
            (100, 3)
        """
        return self.load(view, positions).soft_labels()

    def logits(self, view: int, positions: npt.ArrayLike) -> Array:
        """All logits [B, C] f32 of one view at `positions` [B]: of a full store, or of one with features and head."""
        return all_logits(self, view, np.asarray(positions, dtype=np.int64))

    def struck(self, view: int) -> IntArray:
        """Ascending positions of a view without an answer: samples that could not be read. `read` refuses them."""
        return self.segment_of(view).struck(view)

    def class_means(self, view: int) -> Array:
        """Mean tail logits [C] f32 of the classes, of a view's segment. Raises MissingBlockError without any."""
        if not self.identity.encoding.keeps_class_means:
            raise MissingBlockError(f"{self.folder.root} holds no class means; use --tail uniform, or extract it again")
        return self.segment_of(view).class_means

    def hard_labels(self, view: int, positions: IntArray) -> IntArray:
        """Hard labels [B] i64, or [B, 2] with the partner's under mixing."""
        labels = self.labels[positions]
        if self.identity.plan.mix == "none":
            return labels
        return np.stack([labels, self.labels[partners_of(self.identity.plan, positions, view, self.rows)]], axis=1)

    def add_segment(self, views: ViewSpan) -> Segment:
        """The segment of some views, made where it is missing. Raises InvalidInputError where views overlap."""
        for segment in self.segments:
            if segment.views == views:
                return segment
            if segment.views.overlaps(views):
                raise InvalidInputError(
                    f"views {views} overlap {segment.layout.name}, which is there already; "
                    f"extract {segment.views} to finish it, or views from "
                    f"{max(segment.views.stop for segment in self.segments)} on to add new ones"
                )
        require_small_taps(self.identity, views)
        segment = Segment(self.folder, self.identity, segment_layout(self.identity, views.bounded()), None)
        segment.create()
        self.segments = tuple(sorted((*self.segments, segment), key=lambda segment: segment.views))
        return segment

    def snapshot(self, blocks: Sequence[int] | None = None) -> Self:
        """This store as it is now, by one listing of each segment or with some blocks alone: see `Segment.snapshot`."""
        segments = tuple(segment.snapshot(blocks) for segment in self.segments)
        return type(self)(self.folder, self.manifest, self.seal_record, segments, self.left_out)

    def seal(self) -> Seal:
        """Write a seal that lists every segment's digest, create-only. `open` shows this seal from now on.

        Raises MissingBlockError where a block is not committed: all segments must be whole.
        """
        with writing_store(self.folder, self.identity) as folder:
            known = {segment.views: segment.listed for segment in self.segments}
            segments = Store.listed(folder).segments
            parts = [(part.layout, _commits_by(known.get(part.views), part), part.left_out) for part in segments]
            return write_seal(folder, self.identity, self.labels, parts)


def _commits_by(listed: Mapping[int, Commit] | None, segment: Segment) -> Mapping[int, Commit]:
    """The commits of a snapshot where its last one lies in the segment as well, else those of the segment, by listing:
    another store may have been put in its place meanwhile."""
    last = segment.layout.blocks - 1
    return listed if listed and listed.get(last) == segment.find_commit(last) else segment.commits()


_ADVICE = "use another store path, or the settings that the store was made with (kdcache inspect shows them)"
