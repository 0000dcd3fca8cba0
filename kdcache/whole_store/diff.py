"""Two stores side by side: identity, provenance and content field by field, and how far their soft labels agree."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record, differences
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.store.manifest import DatasetIdentity
from kdcache.store.segment import Segment
from kdcache.store.shards import read_row, require_metadata
from kdcache.store.store import Store
from kdcache.store.whole_arrays import head_digest
from kdcache.whole_store.common_rows import common_views
from kdcache.whole_store.engines import HERE, Engine
from kdcache.whole_store.row_comparison import RowComparison, compare_common_rows
from kdcache.whole_store.store_address import Source, shared

SHOWN = 8  # blocks that a message lists


class FieldDifference(Record):
    """A field and what each store has there, as text."""

    field: str
    a: str
    b: str


class SegmentSummary(Record):
    """A segment: views start to stop - 1, its digest where a seal lists it, blocks in all and those committed."""

    views: ViewSpan
    digest: str | None
    blocks: int
    committed: int


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
    """What tells two stores apart. `same`: equal identities, and segments of the same blocks with equal values, by the
    commits' sha256, or decoded where these differ. Provenance is reported and never counts.

    `rows` compares soft labels; None where no row is in common, or its pictures differ, which `note` explains.
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
    engine: Engine = HERE,
    progress: Progress = silent,
) -> StoreDifference:
    """Compare two stores, which may lie anywhere.

    Soft labels are compared on rows of equal dataset index and view, at most `rows` a view (0: all), where data set,
    view plan and class count are equal; `other_pictures` compares them though the view plans differ. Commits are
    believed: whether files are what they say is for verify.

    Raises InvalidInputError for a temperature that a store does not answer, or views that are not in both.
    """
    identity = _fields(differences(a.identity, b.identity))
    content = () if identity else _content_differences(a, b, engine, progress)
    note, comparable = _comparability(a, b, other_pictures)
    chosen = _chosen_views(a, b, views)
    if comparable and not chosen:
        note, comparable = "no view is in both stores: no row to compare", False
    compared = (
        compare_common_rows(a, b, chosen, temperature=temperature, limit=rows, engine=engine, progress=progress)
        if comparable
        else None
    )
    if comparable and compared is None:
        note = "no row is in both stores in the views that are: no row to compare"
    return StoreDifference(
        a=_summary(a),
        b=_summary(b),
        same=not identity and not content,
        identity=identity,
        content=content,
        provenance=_fields(differences(a.manifest.provenance, b.manifest.provenance)),
        note=note,
        rows=compared,
    )


def _fields(found: Sequence[tuple[str, str, str]]) -> tuple[FieldDifference, ...]:
    return tuple(FieldDifference(field=field, a=a, b=b) for field, a, b in found)


def _summary(store: Store) -> StoreSummary:
    encoding = store.identity.encoding
    kept = "all logits" if encoding.k is None else f"top {encoding.k}"
    digests = {} if store.seal_record is None else {each.views: each.digest for each in store.seal_record.segments}
    segments = tuple(
        SegmentSummary(
            views=each.views, digest=digests.get(each.views), blocks=each.layout.blocks, committed=len(each.commits())
        )
        for each in store.segments
    )
    return StoreSummary(
        store=str(store.folder.root),
        content_id=store.content_id,
        identity=store.identity.digest,
        rows=store.rows,
        classes=store.identity.teacher.classes,
        soft_labels=f"{kept}, {encoding.quantisation} quantisation",
        segments=segments,
    )


def _chosen_views(a: Store, b: Store, views: ViewSpan | None) -> tuple[int, ...]:
    views = None if views is None else ViewSpan.parse(views)
    common = common_views(a, b)
    chosen = common if views is None else tuple(view for view in common if view in views)
    if views is not None and not chosen:
        there = f"A has {list(a.every_view)[:SHOWN]}, B has {list(b.every_view)[:SHOWN]}"
        raise InvalidInputError(f"no view of {views} is in both stores: {there}; choose others")
    return chosen


def _comparability(a: Store, b: Store, other_pictures: bool) -> tuple[str, bool]:
    """Whether rows may be compared, and what has to be said about it."""
    found = _dataset_differences(a.identity.dataset, b.identity.dataset)
    if found:
        return f"the data sets differ ({', '.join(found)}): no row is in common", False
    classes = [store.identity.teacher.classes for store in (a, b)]
    if classes[0] != classes[1]:
        return f"the teachers have {classes[0]} and {classes[1]} classes: their answers are not comparable", False
    if not (why := _other_pictures(a, b)):
        return "", True
    if other_pictures:
        return f"{why}: equal samples are compared, on other pictures", True
    return f"{why}: the teachers saw other pictures; --other-pictures compares their answers all the same", False


def _dataset_differences(a: DatasetIdentity, b: DatasetIdentity) -> list[str]:
    """Fields by which samples or labels differ; other names of the same classes are no such thing."""
    return [field for field, _, _ in differences(a, b, "dataset.") if field != "dataset.class_names"]


def _other_pictures(a: Store, b: Store) -> str:
    """Why equal dataset index and view are not equal pictures; empty where they are."""
    plans = [field for field, _, _ in differences(a.identity.plan, b.identity.plan, "views.")]
    if plans:
        return f"the view plans differ ({', '.join(plans)})"
    if a.identity.plan.mix != "none" and a.identity.order.sha256 != b.identity.order.sha256:
        return "the orders differ, and partners of mixing are drawn among neighbours"
    return ""


def _content_differences(a: Store, b: Store, engine: Engine, progress: Progress) -> tuple[FieldDifference, ...]:
    """What differs between two stores of one identity."""
    if a.content_id is not None and a.content_id == b.content_id:
        return ()
    found = []
    if a.identity.encoding.head and (heads := [head_digest(store.head()) for store in (a, b)])[0] != heads[1]:
        found.append(FieldDifference(field="head", a=heads[0], b=heads[1]))
    of_a, of_b = ({each.layout.name: each for each in store.segments} for store in (a, b))
    for name in sorted(of_a.keys() | of_b.keys()):
        if name in of_a and name in of_b:
            with shared(a) as one, shared(b) as other:
                found += _segment_differences(of_a[name], of_b[name], (one, other), engine, progress)
        else:
            held = [_blocks_of(each[name]) if name in each else "nothing" for each in (of_a, of_b)]
            found.append(FieldDifference(field=name, a=held[0], b=held[1]))
    return tuple(found)


def _blocks_of(segment: Segment) -> str:
    return f"{len(segment.commits())} of {segment.layout.blocks} blocks"


def _segment_differences(
    a: Segment, b: Segment, sources: tuple[Source, Source], engine: Engine, progress: Progress
) -> list[FieldDifference]:
    commits_a, commits_b = dict(a.commits()), dict(b.commits())
    name, found = a.layout.name, []
    if commits_a.keys() != commits_b.keys():
        only = [_listed(x.keys() - y.keys()) for x, y in ((commits_a, commits_b), (commits_b, commits_a))]
        found.append(FieldDifference(field=f"{name} alone", a=f"blocks {only[0]}", b=f"blocks {only[1]}"))
    common = sorted(commits_a.keys() & commits_b.keys())
    other = [block for block in common if commits_a[block].shards != commits_b[block].shards]
    compared = engine.each(partial(other_values, *sources, name), other)
    for done, (block, names) in enumerate(zip(other, compared, strict=False)):
        progress(f"decoding blocks of {name} whose bytes differ", done, len(other))
        if names:
            digests = [commits[block].shards[names[0]].sha256[:16] for commits in (commits_a, commits_b)]
            of = f"{len(other)} of {len(common)} blocks, the first is {block} ({', '.join(names)})"
            said = [f"{of}: {names[0]} has sha256 {digest}" for digest in digests]
            found.append(FieldDifference(field=name, a=said[0], b=said[1]))
            break
    return found


def _listed(blocks: Any) -> str:
    ordered = sorted(blocks)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(str(each) for each in ordered[:SHOWN]) + more if ordered else "none"


def other_values(one: Source, other: Source, name: str, block: int) -> list[str]:
    """Arrays of a block that hold other values: equal ones may be compressed into other bytes. On a worker."""
    a, b = one.segment(name), other.segment(name)
    shards_a, shards_b = a.commit_of(block).shards, b.commit_of(block).shards
    suspects = [array for array in shards_a if shards_a[array] != shards_b[array]]
    return [each for each in suspects if _values_differ(a, b, each, block, (shards_a[each].size, shards_b[each].size))]


def _values_differ(a: Segment, b: Segment, name: str, block: int, sizes: tuple[int, int]) -> bool:
    spec = a.layout.arrays[name]
    for segment in (a, b):
        require_metadata(segment.folder, spec)
    both = tuple(zip((a, b), sizes, strict=True))
    rows = ([read_row(s.folder, spec, block, row, size=n).tobytes() for s, n in both] for row in range(spec.shape[0]))
    return any(of_a != of_b for of_a, of_b in rows)  # as bytes: NaN equals itself
