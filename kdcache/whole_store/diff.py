"""Two stores are compared: identity, provenance and content field by field, and the agreement of their soft labels.

`diff_stores` is the entry; `compare_common_rows` compares the soft labels.
"""

from collections.abc import Sequence, Set
from functools import partial

from kdcache.base.engine import LOCAL, Engine
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record, differences
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import DatasetIdentity
from kdcache.store.segment import Segment
from kdcache.store.shards import read_row, require_metadata
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_digest
from kdcache.whole_store.common_rows import common_views
from kdcache.whole_store.engines import in_order, shared_stores
from kdcache.whole_store.row_comparison import RowComparison, compare_common_rows
from kdcache.whole_store.store_address import StoreAddress

SHOWN = 8  # blocks that a message lists


class FieldDifference(Record):
    """A field, and its value in either store as text."""

    field: str
    a: str
    b: str


class SegmentSummary(Record):
    """A segment: views start to stop - 1, its digest where a seal lists it, blocks in all and those committed, and the
    taps that the copy was made without."""

    views: ViewSpan
    digest: str | None
    blocks: int
    committed: int
    without: tuple[str, ...]


class StoreSummary(Record):
    """One of two stores."""

    store: str
    content_id: str | None
    identity: str
    rows: int
    classes: int
    soft_labels: str
    segments: tuple[SegmentSummary, ...]


class StoreDifference(Record):
    """The differences between two stores.

    `same`: identities are equal, and segments hold the same blocks with equal values. Values are equal where the sha256
    of the commits are; where these differ, the decoded values decide. Provenance is reported and never counts.
    `rows` compares soft labels. It is None where no row is in common or the pictures differ; `note` explains which.
    """

    a: StoreSummary
    b: StoreSummary
    same: bool
    identity: tuple[FieldDifference, ...]
    content: tuple[FieldDifference, ...]
    provenance: tuple[FieldDifference, ...]
    note: str
    rows: RowComparison | None


def diff_stores(
    a: Store,
    b: Store,
    *,
    temperature: float = 1.0,
    rows: int = 4096,
    views: ViewSpan | None = None,
    other_pictures: bool = False,
    engine: Engine = LOCAL,
    progress: Progress = silent,
) -> StoreDifference:
    """Compare two stores, which may lie anywhere.

    Soft labels are compared on rows of equal dataset index and view, at most `rows` a view (0: all). Data set, view
    plan and class count must be equal; `other_pictures` compares them though the view plans differ. The sha256 in the
    commits are taken for true: verify checks the files against them.

    Raises InvalidInputError for a temperature that a store does not answer, or views that are not in both.
    """
    identity = _fields(differences(a.identity, b.identity))
    content = () if identity else _content_differences(a, b, engine, progress)
    note, comparable = _comparability(a, b, other_pictures)
    view_numbers = _common_views(a, b, views)
    if comparable and not view_numbers:
        note, comparable = "no view is in both stores: no row to compare", False
    comparison = (
        compare_common_rows(a, b, view_numbers, temperature=temperature, limit=rows, engine=engine, progress=progress)
        if comparable
        else None
    )
    if comparable and comparison is None:
        note = "no row is in both stores in the views that are: no row to compare"
    return StoreDifference(
        a=_summary(a),
        b=_summary(b),
        same=not identity and not content,
        identity=identity,
        content=content,
        provenance=_fields(differences(a.manifest.provenance, b.manifest.provenance)),
        note=note,
        rows=comparison,
    )


def _fields(triples: Sequence[tuple[str, str, str]]) -> tuple[FieldDifference, ...]:
    """Field differences from (field, value in A, value in B)."""
    return tuple(FieldDifference(field=field, a=a, b=b) for field, a, b in triples)


def _summary(store: Store) -> StoreSummary:
    seal = store.seal_record
    digests = {} if seal is None else {segment.views: segment.digest for segment in seal.segments}
    segments = tuple(
        SegmentSummary(
            views=segment.views,
            digest=digests.get(segment.views),
            blocks=segment.layout.blocks,
            committed=len(segment.commits()),
            without=tuple(segment.left_out_taps),
        )
        for segment in store.segments
    )
    return StoreSummary(
        store=str(store.folder.root),
        content_id=store.content_id,
        identity=store.identity.digest,
        rows=store.rows,
        classes=store.identity.teacher.label_classes,
        soft_labels=store.identity.encoding.title,
        segments=segments,
    )


def _common_views(a: Store, b: Store, views: ViewSpan | None) -> tuple[int, ...]:
    """Numbers of the views of `views` (None: of all) that are in both stores."""
    views = None if views is None else ViewSpan.parse(views)
    view_numbers = tuple(view for view in common_views(a, b) if views is None or view in views)
    if views is not None and not view_numbers:
        contents = f"A has {list(a.every_view)[:SHOWN]}, B has {list(b.every_view)[:SHOWN]}"
        raise InvalidInputError(f"no view of {views} is in both stores: {contents}; choose others")
    return view_numbers


def _comparability(a: Store, b: Store, other_pictures: bool) -> tuple[str, bool]:
    """A note for people, and True where rows may be compared."""
    fields = _dataset_differences(a.identity.dataset, b.identity.dataset)
    if fields:
        return f"the data sets differ ({', '.join(fields)}): no row is in common", False
    classes = [store.identity.teacher.label_classes for store in (a, b)]
    if classes[0] != classes[1]:
        return f"the teachers have {classes[0]} and {classes[1]} classes: their answers are not comparable", False
    if any(store.identity.encoding.DRAWN for store in (a, b)):
        kinds = " and ".join(store.identity.encoding.logits_kept for store in (a, b))
        return f"the stores hold {kinds}: draws give no log-probabilities by class, so no row is compared", False
    if not (reason := _picture_difference(a, b)):
        return "", True
    if other_pictures:
        return f"{reason}: equal samples are compared, on other pictures", True
    return f"{reason}: the teachers saw other pictures; --other-pictures compares their answers all the same", False


def _dataset_differences(a: DatasetIdentity, b: DatasetIdentity) -> list[str]:
    """Fields by which samples or labels differ. Class names are not among them: equal classes may have other names."""
    return [field for field, _, _ in differences(a, b, "dataset.") if field != "dataset.class_names"]


def _picture_difference(a: Store, b: Store) -> str:
    """The reason why rows of equal dataset index and view are not equal pictures; empty where they are."""
    fields = [field for field, _, _ in differences(a.identity.plan, b.identity.plan, "views.")]
    if fields:
        return f"the view plans differ ({', '.join(fields)})"
    if a.identity.plan.mix != "none" and a.identity.order.sha256 != b.identity.order.sha256:
        return "the orders differ, and partners of mixing are drawn among neighbours"
    return ""


def _content_differences(a: Store, b: Store, engine: Engine, progress: Progress) -> tuple[FieldDifference, ...]:
    """Differences in head and segments between two stores of one identity."""
    if a.content_id is not None and a.content_id == b.content_id:
        return ()
    fields = []
    if a.identity.encoding.head and (heads := [head_digest(store.head()) for store in (a, b)])[0] != heads[1]:
        fields.append(FieldDifference(field="head", a=heads[0], b=heads[1]))
    segments_a, segments_b = ({segment.layout.name: segment for segment in store.segments} for store in (a, b))
    with shared_stores(engine, a, b) as (address_a, address_b):
        for name in sorted(segments_a.keys() | segments_b.keys()):
            if name in segments_a and name in segments_b:
                fields += _segment_differences(
                    segments_a[name], segments_b[name], (address_a, address_b), engine, progress
                )
            else:
                blocks = [_blocks_of(by_name.get(name)) for by_name in (segments_a, segments_b)]
                fields.append(FieldDifference(field=name, a=blocks[0], b=blocks[1]))
    return tuple(fields)


def _blocks_of(segment: Segment | None) -> str:
    return "nothing" if segment is None else f"{len(segment.commits())} of {segment.layout.blocks} blocks"


def _segment_differences(
    a: Segment, b: Segment, addresses: tuple[StoreAddress, StoreAddress], engine: Engine, progress: Progress
) -> list[FieldDifference]:
    """Blocks that one of two segments lacks, and the first block whose values differ."""
    commits_a, commits_b = dict(a.commits()), dict(b.commits())
    name, fields = a.layout.name, []
    if commits_a.keys() != commits_b.keys():
        only_a, only_b = commits_a.keys() - commits_b.keys(), commits_b.keys() - commits_a.keys()
        difference = FieldDifference(
            field=f"{name} alone", a=f"blocks {_block_list(only_a)}", b=f"blocks {_block_list(only_b)}"
        )
        fields.append(difference)
    common = sorted(commits_a.keys() & commits_b.keys())
    if strikes := [block for block in common if commits_a[block].struck != commits_b[block].struck]:
        block = strikes[0]
        values = [f"block {block} strikes {len(commits[block].struck)} samples" for commits in (commits_a, commits_b)]
        fields.append(FieldDifference(field=f"{name} struck", a=values[0], b=values[1]))
    suspects = [block for block in common if commits_a[block].shards != commits_b[block].shards]
    results = in_order(engine, partial(differing_arrays, *addresses, name), suspects)
    for done, (block, arrays) in enumerate(zip(suspects, results, strict=False)):
        progress(Activity(f"decoding what differs of {name}", "blocks"), done, len(suspects))
        if arrays:
            count = f"{len(suspects)} of {len(common)} blocks, the first is {block} ({', '.join(arrays)})"
            digests = [commits[block].shards[arrays[0]].sha256[:16] for commits in (commits_a, commits_b)]
            values = [f"{count}: {arrays[0]} has sha256 {digest}" for digest in digests]
            fields.append(FieldDifference(field=name, a=values[0], b=values[1]))
            break
    return fields


def _block_list(blocks: Set[int]) -> str:
    numbers = sorted(blocks)
    rest = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(str(number) for number in numbers[:SHOWN]) + rest if numbers else "none"


def differing_arrays(address_a: StoreAddress, address_b: StoreAddress, name: str, block: int) -> list[str]:
    """Names of the arrays of a block whose values differ. Other bytes are no proof: equal values may be compressed into
    other bytes. On a worker."""
    a, b = address_a.segment(name), address_b.segment(name)
    shards_a, shards_b = a.commit_of(block).shards, b.commit_of(block).shards
    suspects = [array for array in shards_a if shards_a[array] != shards_b[array]]
    sizes = {array: (shards_a[array].size, shards_b[array].size) for array in suspects}
    return [array for array in suspects if _values_differ(a, b, array, block, sizes[array])]


def _values_differ(a: Segment, b: Segment, array: str, block: int, sizes: tuple[int, int]) -> bool:
    spec = a.layout.arrays[array]
    for segment in (a, b):
        segment.require_held([array])
        require_metadata(segment.folder, spec)
    for row in range(spec.shape[0]):
        rows = [
            read_row(segment.folder, spec, block, row, size=size) for segment, size in zip((a, b), sizes, strict=True)
        ]
        if rows[0].tobytes() != rows[1].tobytes():  # as bytes: NaN equals itself
            return True
    return False
