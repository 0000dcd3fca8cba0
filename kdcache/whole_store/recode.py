"""Recoding writes a store again without its teacher: fewer classes, coarser steps, another packing.

`recode_store` is the entry; it works block by block from a source store into an output store. Blocks are committed as
extract commits them: shards first, create-only, the commit last. A recoding that is killed therefore leaves whole
blocks, and the same command goes on. A worker holds one block of the source store, decoded, and one of the output.
"""

import importlib.metadata
from collections.abc import Container
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.engine import LOCAL, Engine
from kdcache.base.progress import Activity, Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan
from kdcache.errors import StoreError
from kdcache.places.folder import Folder
from kdcache.sharing.merge import missing_blocks
from kdcache.store.commits import Commit, Counts, list_commits
from kdcache.store.id_sums import IdSums, added_sums
from kdcache.store.layout import CARD, SegmentLayout
from kdcache.store.manifest import Card, Identity, Provenance
from kdcache.store.origins import RECODED
from kdcache.store.plan import draw_words
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.whole_store.blocks import block_labels, block_struck, block_unanswered, read_block, view_rows
from kdcache.whole_store.engines import in_order, shared_stores
from kdcache.whole_store.recode_plan import (
    Narrowing,
    narrow_identity,
    open_output,
    open_source_store,
    recoded_provenance,
    require_recoded_from,
)
from kdcache.whole_store.recoding import CARRIED, RecodedRows, Recoding, SegmentSums
from kdcache.whole_store.store_address import StoreAddress

RECODING = Activity("recoding", "blocks")
Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

AGAIN = "run the same kdcache recode again to go on"
PACKAGES = ("kdcache", "numcodecs", "numpy", "zarr")
SHOWN = 8


class RecodeSummary(Record):
    """The result of a recoding. `present` counts those of the `blocks` that lay in the output before. `bytes` and
    `bytes_before` are of committed files, `rows` counts (position, view). `content_id` is None where no seal was
    written."""

    out: str
    content_id: str | None
    source: str
    source_content_id: str
    encoding_before: str
    encoding: str
    blocks: int
    present: int
    rows: int
    bytes_before: int
    bytes: int
    clamped: int


@dataclass(frozen=True)
class Task:
    """A block of the output, and the digest of the source store's segment from which it is recoded."""

    segment: str
    block: int
    digest: str


def recode_store(
    url: str,
    out: str,
    narrowing: Narrowing,
    *,
    views: ViewSpan | None = None,
    seal: bool = True,
    engine: Engine = LOCAL,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> RecodeSummary:
    """Write a sealed store (by its latest seal, or the one that `url` pins) to the folder `out` in another encoding.

    Data set, order, views and teacher stay as they are. Pixels and canary are carried over, features, head and taps
    unless they are dropped. Every file that is read is held against its sha256.

    Raises InvalidInputError for an encoding that the source cannot give, MissingBlockError for taps that the source was
    copied without and that are not dropped, MismatchError where the output is another
    store or holds blocks from elsewhere, StoreError where files without a commit take a block's place, DamagedError,
    InterruptedRunError on a stop, and the errors of opening the store.
    """
    source, segments = open_source_store(url, views)
    identity = narrow_identity(source.identity, narrowing)
    carried = Recoding(source.identity, identity).outputs.values()
    for sealed_segment in segments.values():
        source.segment_of(sealed_segment.views.start).require_held(carried)
    output = _create_output(open_output(out, url), source, identity)
    tasks, present_count = [], 0
    for name, sealed_segment in segments.items():
        digest = sealed_segment.digest
        segment = output.add_segment(sealed_segment.views)
        commits = list_commits(output.folder, segment.layout)
        require_recoded_from(digest, segment, {block: commit.provenance for block, commit in commits.items()})
        tasks += [Task(name, block, digest) for block in range(segment.layout.blocks) if block not in commits]
        present_count += len(commits)
    with shared_stores(engine, source, output) as (source_address, output_address):
        _recode(source_address, output_address, tasks, engine, progress, stop or StopRequest())
    source_commits, output_commits = (_commits(store, segments) for store in (source, output))
    return RecodeSummary(
        out=str(output.folder.root),
        content_id=output.seal().content_id if seal and not list(missing_blocks(output)) else None,
        source=str(source.folder.root),
        source_content_id=source.content_id or "",
        encoding_before=source.identity.encoding.described(),
        encoding=identity.encoding.described(),
        blocks=len(output_commits),
        present=present_count,
        rows=sum(commit.rows for commit in output_commits),
        bytes_before=_bytes(source_commits),
        bytes=_bytes(output_commits),
        clamped=sum(commit.counts.clamped for commit in output_commits),
    )


def _create_output(folder: Folder, source: Store, identity: Identity) -> Store:
    """The output store: manifest, order, labels, head and the source store's card, written where they are missing."""
    store = Store.create(
        folder.root,
        identity,
        order=source.order,
        labels=source.labels,
        provenance=recoded_provenance(source),
        head=source.head() if identity.encoding.head else None,
    )
    if (card := source.card) != Card():
        folder.put_new(CARD, card.to_bytes())
    return store


def _commits(store: Store, names: Container[str]) -> list[Commit]:
    segments = [segment for segment in store.segments if segment.layout.name in names]
    return [commit for segment in segments for commit in segment.commits().values()]


def _bytes(commits: list[Commit]) -> int:
    return sum(shard.size for commit in commits for shard in commit.shards.values())


def _recode(
    source: StoreAddress, output: StoreAddress, tasks: list[Task], engine: Engine, progress: Progress, stop: StopRequest
) -> None:
    progress(RECODING, 0, len(tasks))
    blocked_tasks = []
    outcomes = in_order(engine, partial(recode_block, source, output), tasks, poll=lambda: stop.check(AGAIN))
    for done, (task, committed) in enumerate(zip(tasks, outcomes, strict=True), 1):
        if not committed:
            blocked_tasks.append(task)
        progress(RECODING, done, len(tasks))
    if blocked_tasks:
        blocks = ", ".join(f"{task.segment} block {task.block}" for task in blocked_tasks[:SHOWN])
        raise StoreError(
            f"{output.url} holds other files in the place of {len(blocked_tasks)} blocks, left by a writer that has "
            f"not committed them ({blocks}); recode into a new folder"
        )


def recode_block(source: StoreAddress, output: StoreAddress, task: Task) -> bool:
    """Recode and commit one block of the output; False where another writer's files are in its place. On a worker."""
    old, new = source.segment(task.segment), output.segment(task.segment)
    start, stop = new.layout.block_rows(task.block)
    work = _BlockRecoder(source.store(), old, Recoding(old.identity, new.identity), start, stop)
    old_blocks = range(start // old.layout.block, (stop - 1) // old.layout.block + 1)
    for old_block in old_blocks:
        work.add(old_block)
    commit = old.commit_of(old_blocks[0])
    note = {"segment": task.digest, "versions": _versions()}
    provenance = Provenance.model_validate({**commit.provenance.model_dump(), RECODED: note})
    arrays = work.arrays(new.layout, task.block)
    committed = new.commit(
        task.block, arrays=arrays, counts=work.counts, provenance=provenance, struck=work.struck, ids=work.ids
    )
    return committed is not None


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class _BlockRecoder:
    """One block of the output, positions `start` to `stop - 1`, recoded from the source's blocks that it covers."""

    def __init__(self, store: Store, segment: Segment, recoding: Recoding, start: int, stop: int) -> None:
        self.store, self.segment, self.recoding = store, segment, recoding
        self.start, self.stop = start, stop
        self.counts, self.struck = Counts(), list[int]()
        self.ids: tuple[()] | IdSums = (0, 0)
        self._parts: list[dict[str, Array]] = []
        self._first: dict[str, Array] = {}

    def add(self, block: int) -> None:
        """Recode the rows that a block of the source store has in common with this one."""
        start, stop = self.segment.layout.block_rows(block)
        rows = np.arange(max(self.start, start), min(self.stop, stop)) - start
        arrays = read_block(self.segment, block, self._names(block))
        commit = self.segment.commit_of(block)
        counts = commit.counts
        self.struck += [position for position in commit.struck if self.start <= position < self.stop]
        if block == 0 and self.start == 0:
            self._first = self._first_block_arrays(arrays)
        part, part_counts = self._recode_rows(block, arrays, rows, suspect=counts.clamped > 0)
        specs = self.segment.layout.arrays
        names = {name: name for name in CARRIED if name in arrays and specs[name].block_axis is not None}
        names |= self.recoding.outputs
        self._parts.append(part | {name: arrays[source][:, rows] for name, source in names.items()})
        whole = len(rows) == stop - start  # else the commit's counts are of more rows than these
        self.ids = added_sums(self.ids, commit.ids if whole else ())
        self._count(counts if whole else part_counts, part_counts.clamped)

    def arrays(self, layout: SegmentLayout, block: int) -> dict[str, Array]:
        """All arrays of the block."""
        arrays = {
            name: np.concatenate([part[name] for part in self._parts], axis=spec.block_axis or 0)
            for name, spec in layout.arrays.items()
            if spec.block_axis is not None
        }
        return arrays | (self._first if block == 0 else {})

    def _names(self, block: int) -> list[str]:
        """Names of the arrays of a source block that are read."""
        dropped = self.recoding.source.encoding.outputs.keys() - set(self.recoding.outputs.values())
        return [name for name in self.segment.layout.arrays_of(block) if name not in dropped]

    def _recode_rows(
        self, block: int, arrays: dict[str, Array], subset: IntArray, *, suspect: bool
    ) -> tuple[dict[str, Array], Counts]:
        """Recoded soft labels [Vs, R, ...] of a subset [R] of a block's rows, and the counts of these rows.

        A commit says how many rows were clamped and not which. So where the source store clamped any (`suspect`), all
        rows at a limit count as clamped."""
        labels, clamped_count = block_labels(self.store, self.segment, block), 0
        struck, views = block_struck(self.segment, block), list[RecodedRows]()
        for place in range(len(self.segment.views)):
            answered = ~struck[place, subset]
            rows = view_rows(self.segment, block, arrays, place, labels[place]).take(subset[answered])
            words = self._draw_words(self.segment.views.start + place, rows.positions)
            recoded = self.recoding.view(rows, labels[place][subset[answered]], words)
            views.append(self.recoding.spread(recoded, answered))
            clamped_count += int((recoded.clamped | recoded.at_limit if suspect else recoded.clamped).sum())
        names = views[0].arrays
        result = {name: np.concatenate([recoded.arrays[name] for recoded in views]) for name in names}
        return result, Counts.of(np.concatenate([recoded.label for recoded in views]), clamped_count)

    def _draw_words(self, view: int, positions: IntArray) -> Array | None:
        """The rows' key words, where draws are made of all logits."""
        source, target = self.recoding.source, self.recoding.target
        if not target.encoding.DRAWN or source.encoding.DRAWN:
            return None
        return draw_words(target.plan.seed, self.store.order[positions], view)

    def _first_block_arrays(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The canary, and the segment's own arrays, which are computed again where other logits are kept."""
        source, target = self.recoding.source, self.recoding.target
        names = list(target.encoding.segment_arrays(target.space))
        if source.kept == target.kept and all(name in arrays for name in names):
            return {name: arrays[name] for name in ("canary", *names) if name in arrays}
        means = arrays["class_means"][0] if source.encoding.keeps_class_means else None
        sums = SegmentSums(self.recoding, means)
        labels, struck = block_labels(self.store, self.segment, 0), block_unanswered(self.store, self.segment, 0)
        for place in range(len(self.segment.views)) if names else ():
            answered = np.flatnonzero(~struck[place])
            rows = view_rows(self.segment, 0, arrays, place, labels[place]).take(answered)
            sums.add(rows, labels[place][answered])
        return {name: arrays[name] for name in ("canary",) if name in arrays} | sums.values()

    def _count(self, counts: Counts, clamped_count: int) -> None:
        self.counts = Counts(
            clamped=self.counts.clamped + clamped_count,
            labelled=self.counts.labelled + counts.labelled,
            correct=self.counts.correct + counts.correct,
        )
