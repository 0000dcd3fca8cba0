"""Statistics of a whole store: what its soft labels are like, what they cost, and how far they can be trusted.

Rows are read a block at a time, each file held against its sha256, and counted; counts and sums are small and are added
up in the order of blocks. Percentiles come from counts, not from parts' percentiles.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import exp

import numpy as np
import numpy.typing as npt

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import MissingBlockError
from kdcache.labels.encoding import described
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import ReliabilityBin, calibration_error, reliability_bins
from kdcache.whole_store.engines import HERE, Engine
from kdcache.whole_store.stats_sums import Sums, ViewSums, sum_block
from kdcache.whole_store.store_address import shared
from kdcache.whole_store.tally import Percentiles

HISTOGRAM = 50  # bins of the histograms that are drawn


class ArrayBytes(Record):
    """What an array takes on disk: bytes of its shards, and bytes a row, a (position, view)."""

    name: str
    bytes: int
    a_row: float


class ViewStats(Record):
    """One view; all but counts are means or shares of 1. `kept`: mass of the top k at T = 1, 2, 4 (None: all logits).
    `accuracy`: the top class is the hard label, or one of two under mixing; `nll` (nats) and `ece` at T = 1, not under
    mixing; None where no row has a label. `agreement`: share of the pass's other views with the same top class (None:
    there are none)."""

    view: int
    rows: int
    unlabelled: float
    accuracy: float | None
    nll: float | None
    ece: float | None
    confidence: float
    entropy: float
    kept: tuple[float, float, float] | None
    agreement: float | None


class StoreStats(Record):
    """All rows that are committed. Fields as in `ViewStats`, spreads over rows; `entropy` in nats at T = 1, of a top-k
    store with the tail's part estimated. `unanimous`: share of positions whose views of a pass all have one top class.
    `clamped` counts rows whose gaps or label did not fit. `top_by_class` counts rows by top class, `labels_by_class`
    positions by hard label; `classes_in_use` is the exponential of the entropy of the former. Histograms have 50 equal
    bins from 0 to 1, `reliability` the bins of the ECE that hold rows."""

    store: str
    content_id: str | None
    soft_labels: str
    classes: int
    rows: int
    blocks: int
    missing: int
    bytes: int
    bytes_a_row: float
    arrays: tuple[ArrayBytes, ...]
    unlabelled: float
    accuracy: float | None
    nll: float | None
    ece: float | None
    confidence: Percentiles
    entropy: Percentiles
    kept: tuple[Percentiles, Percentiles, Percentiles] | None
    agreement: float | None
    unanimous: float | None
    clamped: int
    classes_in_use: float
    classes_never_top: int
    views: tuple[ViewStats, ...]
    reliability: tuple[ReliabilityBin, ...]
    confidence_histogram: tuple[int, ...]
    kept_histograms: tuple[tuple[int, ...], ...]
    top_by_class: tuple[int, ...]
    labels_by_class: tuple[int, ...]


def store_stats(store: Store, *, engine: Engine = HERE, progress: Progress = silent) -> StoreStats:
    """Statistics over every committed row of a store, which may lie anywhere.

    Raises MissingBlockError where nothing is committed, DamagedError where a file is not the one of its commit.
    """
    labels = np.bincount(store.labels[store.labels >= 0], minlength=store.identity.teacher.classes)  # checks them too
    commits = [(segment, dict(segment.commits())) for segment in store.segments]
    blocks = [(segment.layout.name, block) for segment, each in commits for block in sorted(each)]
    if not blocks:
        raise MissingBlockError(f"{store.folder.root} has no committed block; run kdcache extract")
    total = Sums(store.identity.teacher.classes)
    progress("reading blocks", 0, len(blocks))
    with shared(store) as source:
        engine.ready(source)
        for done, sums in enumerate(engine.each(partial(sum_block, source), blocks), 1):
            total.join(sums)
            progress("reading blocks", done, len(blocks))
    return _stats(store, commits, total, labels)


def _stats(
    store: Store, commits: Sequence[tuple[Segment, dict[int, Commit]]], sums: Sums, labels: npt.NDArray[np.int64]
) -> StoreStats:
    every = [commit for _, each in commits for commit in each.values()]
    rows = sum(commit.rows for commit in every)
    arrays = tuple(_arrays(every, rows))
    together = ViewSums()
    for each in sums.by_view.values():
        together.join(each)
    mixed, topk = store.identity.plan.mix != "none", store.identity.encoding.k is not None
    over_all = _view(-1, together, mixed=mixed, topk=topk, others=1)
    blocks = sum(segment.layout.blocks for segment, _ in commits)
    shares = sums.top[sums.top > 0] / rows
    return StoreStats(
        store=str(store.folder.root),
        content_id=store.content_id,
        soft_labels=described(store.identity.encoding),
        classes=store.identity.teacher.classes,
        rows=rows,
        blocks=blocks,
        missing=blocks - len(every),
        bytes=sum(each.bytes for each in arrays),
        bytes_a_row=sum(each.bytes for each in arrays) / rows,
        arrays=arrays,
        unlabelled=over_all.unlabelled,
        accuracy=over_all.accuracy,
        nll=over_all.nll,
        ece=over_all.ece,
        confidence=sums.confidence.percentiles(),
        entropy=sums.entropy.percentiles(),
        kept=(sums.kept[0].percentiles(), sums.kept[1].percentiles(), sums.kept[2].percentiles()) if topk else None,
        agreement=together.agreeing / sums.pairs if sums.pairs else None,
        unanimous=sums.unanimous / sums.positions if sums.pairs else None,
        clamped=sum(commit.counts.clamped for commit in every),
        classes_in_use=exp(-float((shares * np.log(shares)).sum())),
        classes_never_top=int((sums.top == 0).sum()),
        views=tuple(
            _view(view, each, mixed=mixed, topk=topk, others=len(store.segment_of(view).views) - 1)
            for view, each in sorted(sums.by_view.items())
        ),
        reliability=() if mixed else reliability_bins(together.calibration),
        confidence_histogram=sums.confidence.coarse(HISTOGRAM),
        kept_histograms=tuple(each.coarse(HISTOGRAM) for each in sums.kept) if topk else (),
        top_by_class=tuple(sums.top.tolist()),
        labels_by_class=tuple(labels.tolist()),
    )


def _arrays(commits: Sequence[Commit], rows: int) -> Iterator[ArrayBytes]:
    sizes: dict[str, int] = {}
    for commit in commits:
        for name, shard in commit.shards.items():
            sizes[name] = sizes.get(name, 0) + shard.size
    sizes["commits"] = sum(len(commit.to_bytes()) for commit in commits)
    for name, size in sizes.items():
        yield ArrayBytes(name=name, bytes=size, a_row=size / rows)


def _view(view: int, sums: ViewSums, *, mixed: bool, topk: bool, others: int) -> ViewStats:
    labelled = sums.rows - sums.unlabelled
    one_label = labelled > 0 and not mixed
    kept = (sums.kept / sums.rows).tolist()
    return ViewStats(
        view=view,
        rows=sums.rows,
        unlabelled=sums.unlabelled / sums.rows,
        accuracy=sums.correct / labelled if labelled else None,
        nll=sums.nll / labelled if one_label else None,
        ece=calibration_error(sums.calibration) if one_label else None,
        confidence=sums.confidence / sums.rows,
        entropy=sums.entropy / sums.rows,
        kept=(kept[0], kept[1], kept[2]) if topk else None,
        agreement=sums.agreeing / (sums.rows * others) if others else None,
    )
