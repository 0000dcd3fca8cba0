"""Statistics of a whole store: spreads of its soft labels, their bytes on disk, and their agreement with hard labels.

`store_stats` is the entry. Each block is read once, every file held against its sha256, and counted on an engine
(`stats_sums`). Counts and sums are small and are added up in the order of blocks. Percentiles come from counts over all
rows, not from percentiles of parts.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import exp

import numpy as np
import numpy.typing as npt

from kdcache.base.calibration_bins import calibration_error
from kdcache.base.engine import LOCAL, Engine
from kdcache.base.progress import Activity, Progress, silent
from kdcache.base.records import Record
from kdcache.errors import MissingBlockError
from kdcache.store.commits import Commit
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import ReliabilityBin, reliability_bins
from kdcache.whole_store.engines import in_order, shared_stores
from kdcache.whole_store.output_values import OutputStats, shape_of
from kdcache.whole_store.stats_sums import Sums, ViewSums, sum_block
from kdcache.whole_store.tally import Percentiles

READING = Activity("reading", "blocks")
HISTOGRAM = 50  # bins of the histograms that are drawn


class ArrayBytes(Record):
    """The size of an array on disk: bytes of its shards, and bytes a row, that is a (position, view)."""

    name: str
    bytes: int
    a_row: float


class ViewStats(Record):
    """One view. All numbers but counts are means, or shares of 1.

    `kept`: mass of the top k at T = 1, 2, 4, or at T = 1 where no more is known (None: the store holds all
    logits). `accuracy`: share of rows whose top
    class is the hard label, or one of the two under mixing. `nll` (nats) and `ece` are at T = 1, and None under mixing.
    All three are None where no row has a label. `agreement`: share of the pass's other views with the same top class
    (None: the pass has no other view)."""

    view: int
    rows: int
    unlabelled: float
    accuracy: float | None
    nll: float | None
    ece: float | None
    confidence: float
    entropy: float
    kept: tuple[float, ...] | None
    agreement: float | None


class StoreStats(Record):
    """Statistics of all committed rows. Fields are as in `ViewStats`, with spreads over rows.

    `missing` counts the blocks that are not committed, `struck` the committed rows without an answer, which are not
    among the `rows`. `entropy` is in nats at T = 1; of a top-k store the tail's part is estimated. `unanimous`: share
    of positions whose views of a pass all have one top class. `clamped` counts rows whose gaps or label did not fit.
    `top_by_class` counts rows by top class, and `classes_in_use` is the exponential of its entropy; `outputs` are
    features and taps, `without` names the taps that the copy was made without; `labels_by_class` counts positions by
    hard label. Histograms have 50 equal bins from 0 to 1, `reliability` the bins of the ECE that hold rows."""

    store: str
    content_id: str | None
    soft_labels: str
    classes: int
    rows: int
    struck: int
    blocks: int
    missing: int
    bytes: int
    bytes_a_row: float
    arrays: tuple[ArrayBytes, ...]
    outputs: tuple[OutputStats, ...]
    without: tuple[str, ...]
    unlabelled: float
    accuracy: float | None
    nll: float | None
    ece: float | None
    confidence: Percentiles
    entropy: Percentiles
    kept: tuple[Percentiles, ...] | None
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


def store_stats(store: Store, *, engine: Engine = LOCAL, progress: Progress = silent) -> StoreStats:
    """Statistics over every committed row of a store, which may lie anywhere.

    Raises InvalidInputError for drawn soft labels, MissingBlockError where nothing is committed,
    DamagedError where a file is not the one of its commit.
    """
    store.identity.encoding.require_log_probs("kdcache stats")
    classes = store.identity.teacher.label_classes
    labels = np.bincount(store.labels[store.labels >= 0], minlength=classes)  # checks them too
    commits = [(segment, dict(segment.commits())) for segment in store.segments]
    blocks = [(segment.layout.name, block) for segment, by_block in commits for block in sorted(by_block)]
    if not blocks:
        raise MissingBlockError(f"{store.folder.root} has no committed block; run kdcache extract")
    total = Sums(classes)
    progress(READING, 0, len(blocks))
    with shared_stores(engine, store) as (address,):
        for done, sums in enumerate(in_order(engine, partial(sum_block, address), blocks), 1):
            total.join(sums)
            progress(READING, done, len(blocks))
    return _stats(store, commits, total, labels)


def _stats(
    store: Store, commits: Sequence[tuple[Segment, dict[int, Commit]]], sums: Sums, labels: npt.NDArray[np.int64]
) -> StoreStats:
    all_commits = [commit for _, by_block in commits for commit in by_block.values()]
    rows = sum(view_sums.rows for view_sums in sums.by_view.values())
    if not rows:
        raise MissingBlockError(f"{store.folder.root}: all committed rows are struck; extract a data set that decodes")
    arrays = tuple(_arrays(commits, rows))
    left_out = {array for segment, _ in commits for array in segment.left_out}
    overall = ViewSums()
    for view_sums in sums.by_view.values():
        overall.join(view_sums)
    mixed, tails = store.identity.plan.mix != "none", len(store.identity.encoding.tail_temperatures)
    stats = _view(-1, overall, mixed=mixed, tails=tails)
    blocks = sum(segment.layout.blocks for segment, _ in commits)
    shares = sums.top[sums.top > 0] / rows
    return StoreStats(
        store=str(store.folder.root),
        content_id=store.content_id,
        soft_labels=store.identity.encoding.described(),
        classes=store.identity.teacher.label_classes,
        rows=rows,
        struck=overall.struck,
        blocks=blocks,
        missing=blocks - len(all_commits),
        bytes=sum(array.bytes for array in arrays),
        bytes_a_row=sum(array.bytes for array in arrays) / rows,
        arrays=arrays,
        outputs=tuple(
            output_sums.stats(name, shape_of(store.identity.encoding, name))
            for name, output_sums in sums.outputs.items()
        ),
        without=tuple(store.identity.encoding.tap_names(left_out)),
        unlabelled=stats.unlabelled,
        accuracy=stats.accuracy,
        nll=stats.nll,
        ece=stats.ece,
        confidence=sums.confidence.percentiles(),
        entropy=sums.entropy.percentiles(),
        kept=tuple(mass.percentiles() for mass in sums.kept[:tails]) if tails else None,
        agreement=stats.agreement,
        unanimous=sums.unanimous / sums.positions if sums.positions else None,
        clamped=sum(commit.counts.clamped for commit in all_commits),
        classes_in_use=exp(-float((shares * np.log(shares)).sum())),
        classes_never_top=int((sums.top == 0).sum()),
        views=tuple(
            _view(view, view_sums, mixed=mixed, tails=tails) for view, view_sums in sorted(sums.by_view.items())
        ),
        reliability=() if mixed else reliability_bins(overall.calibration),
        confidence_histogram=sums.confidence.coarse(HISTOGRAM),
        kept_histograms=tuple(mass.coarse(HISTOGRAM) for mass in sums.kept[:tails]),
        top_by_class=tuple(sums.top.tolist()),
        labels_by_class=tuple(labels.tolist()),
    )


def _arrays(commits: Sequence[tuple[Segment, dict[int, Commit]]], rows: int) -> Iterator[ArrayBytes]:
    sizes: dict[str, int] = {}
    for segment, by_block in commits:
        for commit in by_block.values():
            for name, shard in commit.shards.items():
                if name not in segment.left_out:
                    sizes[name] = sizes.get(name, 0) + shard.size
    sizes["commits"] = sum(len(commit.to_bytes()) for _, by_block in commits for commit in by_block.values())
    for name, size in sizes.items():
        yield ArrayBytes(name=name, bytes=size, a_row=size / rows)


def _view(view: int, sums: ViewSums, *, mixed: bool, tails: int) -> ViewStats:
    labelled_rows = sums.rows - sums.unlabelled
    one_label = labelled_rows > 0 and not mixed
    masses = (sums.kept[:tails] / sums.rows).tolist()
    return ViewStats(
        view=view,
        rows=sums.rows,
        unlabelled=sums.unlabelled / sums.rows,
        accuracy=sums.correct / labelled_rows if labelled_rows else None,
        nll=sums.nll / labelled_rows if one_label else None,
        ece=calibration_error(sums.calibration) if one_label else None,
        confidence=sums.confidence / sums.rows,
        entropy=sums.entropy / sums.rows,
        kept=tuple(masses) if tails else None,
        agreement=sums.agreeing / sums.pairs if sums.pairs else None,
    )
