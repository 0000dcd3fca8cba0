"""Recoding a store without its teacher: fewer classes, coarser steps, another packing, block by block into a new store.

Blocks are committed as extract commits them: shards first, create-only, the commit last. So a recoding that is killed
leaves whole blocks, and the same command goes on. A worker holds one block of the source, decoded, and one of the
output.
"""

import importlib.metadata
from collections.abc import Container
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan
from kdcache.errors import StoreError
from kdcache.labels.encoding import described
from kdcache.labels.quantising import NO_LABEL
from kdcache.places.folder import Folder
from kdcache.sharing.merge import missing_blocks
from kdcache.store.commits import Commit, Counts, list_commits
from kdcache.store.layout import CARD, SegmentLayout
from kdcache.store.lineage import RECODED
from kdcache.store.manifest import Card, Identity, Provenance
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.whole_store.blocks import block_labels, read_block, view_rows
from kdcache.whole_store.engines import HERE, Engine
from kdcache.whole_store.recode_plan import Narrowing, narrowed, open_source, open_target, require_own, told
from kdcache.whole_store.recoding import CARRIED, ClassMeans, Recoding
from kdcache.whole_store.store_address import Source, shared

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

AGAIN = "run the same kdcache recode again to go on"
PACKAGES = ("kdcache", "numcodecs", "numpy", "zarr")
SHOWN = 8


class Recoded(Record):
    """What was done. `present` of the `blocks` lay in the output before. Bytes are of committed files, a row being a
    (position, view); `content_id` is None where no seal was written."""

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
    """A block of the output, and the digest of the source's segment that it comes from."""

    segment: str
    block: int
    digest: str


def recode_store(
    url: str,
    out: str,
    wanted: Narrowing,
    *,
    views: ViewSpan | None = None,
    seal: bool = True,
    engine: Engine = HERE,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> Recoded:
    """Write what a store's seal lists (the latest, or the one that `url` pins) to the folder `out` in another encoding.

    Data set, order, views and teacher stay what they are; pixels, canary and what is kept beside soft labels are
    carried over. Every file that is read is held against its sha256.

    Raises InvalidInputError for an encoding that the source cannot give, MismatchError where the output is another
    store or holds blocks from elsewhere, StoreError where files without a commit take a block's place, DamagedError,
    InterruptedRunError on a stop, and whatever opening the store raises.
    """
    source, segments = open_source(url, views)
    target = narrowed(source.identity, wanted)
    store = _prepare(open_target(out, url), source, target)
    tasks, present = [], 0
    for name, sealed in segments.items():
        segment = store.add_segment(sealed.views)
        standing = list_commits(store.folder, segment.layout)
        require_own(segment, {block: commit.provenance for block, commit in standing.items()}, sealed.digest)
        tasks += [Task(name, block, sealed.digest) for block in range(segment.layout.blocks) if block not in standing]
        present += len(standing)
    with shared(source) as one, shared(store) as other:
        engine.ready(one, other)
        _recode(one, other, tasks, engine, progress, stop or StopRequest())
    before, after = (_commits(each, segments) for each in (source, store))
    return Recoded(
        out=str(store.folder.root),
        content_id=store.seal().content_id if seal and not list(missing_blocks(store)) else None,
        source=str(source.folder.root),
        source_content_id=source.content_id or "",
        encoding_before=described(source.identity.encoding),
        encoding=described(target.encoding),
        blocks=len(after),
        present=present,
        rows=sum(commit.rows for commit in after),
        bytes_before=_bytes(before),
        bytes=_bytes(after),
        clamped=sum(commit.counts.clamped for commit in after),
    )


def _prepare(folder: Folder, source: Store, target: Identity) -> Store:
    """Manifest, order, labels and head, made where they are missing; the source's card where the output has none."""
    store = Store.create(
        folder.root,
        target,
        order=source.order,
        labels=source.labels,
        provenance=told(source),
        head=source.head() if target.encoding.head else None,
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
    source: Source, target: Source, tasks: list[Task], engine: Engine, progress: Progress, stop: StopRequest
) -> None:
    progress("recoding blocks", 0, len(tasks))
    left = []
    recoded = engine.each(partial(recode_block, source, target), tasks, poll=lambda: stop.check(AGAIN))
    for done, (task, whole) in enumerate(zip(tasks, recoded, strict=True), 1):
        if not whole:
            left.append(task)
        progress("recoding blocks", done, len(tasks))
    if left:
        blocks = ", ".join(f"{task.segment} block {task.block}" for task in left[:SHOWN])
        raise StoreError(
            f"{target.url} holds other files in the place of {len(left)} blocks, left by a writer that has not "
            f"committed them ({blocks}); recode into a new folder"
        )


def recode_block(source: Source, target: Source, task: Task) -> bool:
    """Recode and commit one block of the output; False where another writer's files are in its place. On a worker."""
    old, new = source.segment(task.segment), target.segment(task.segment)
    first, last = new.layout.block_rows(task.block)
    of_source = range(first // old.layout.block, (last - 1) // old.layout.block + 1)
    work = _Block(source.store(), old, Recoding(old.identity, new.identity), (first, last))
    for block in of_source:
        work.add(block)
    commit = old.commit_of(of_source[0])
    note = {"segment": task.digest, "versions": _versions()}
    provenance = Provenance.model_validate({**commit.provenance.model_dump(), RECODED: note})
    done = new.commit(task.block, arrays=work.arrays(new.layout, task.block), counts=work.counts, provenance=provenance)
    return done is not None


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class _Block:
    """One block of the output, gathered from the blocks of the source that it covers."""

    def __init__(self, store: Store, segment: Segment, recoding: Recoding, span: tuple[int, int]) -> None:
        self.store, self.segment, self.recoding, self.span = store, segment, recoding, span
        self.counts = Counts()
        self._parts: list[dict[str, Array]] = []
        self._first: dict[str, Array] = {}

    def add(self, block: int) -> None:
        """Recode what a block of the source holds of this one."""
        begin, end = self.segment.layout.block_rows(block)
        inside = np.arange(max(self.span[0], begin), min(self.span[1], end)) - begin
        stored = read_block(self.segment, block, self._names(block))
        counts = self.segment.commit_of(block).counts
        if block == 0 and self.span[0] == 0:
            self._first = self._of_first_block(stored)
        part, clamped = self._recoded(block, stored, inside, suspect=counts.clamped > 0)
        carried = [name for name in CARRIED if name in stored and name in self.segment.layout.rowwise]
        self._parts.append(part | {name: stored[name][:, inside] for name in carried})
        self._count(counts if len(inside) == end - begin else _seen(part), clamped)

    def arrays(self, layout: SegmentLayout, block: int) -> dict[str, Array]:
        """All arrays of the block."""
        joined = {
            name: np.concatenate([part[name] for part in self._parts], axis=spec.block_axis or 0)
            for name, spec in layout.arrays.items()
            if spec.block_axis is not None
        }
        return joined | (self._first if block == 0 else {})

    def _names(self, block: int) -> list[str]:
        """Arrays of the source that are needed."""
        features = self.recoding.target.encoding.features
        return [name for name in self.segment.layout.arrays_of(block) if name != "features" or features]

    def _recoded(
        self, block: int, stored: dict[str, Array], inside: IntArray, *, suspect: bool
    ) -> tuple[dict[str, Array], int]:
        """Soft labels, and rows that are clamped. Which the source clamped is not known: where it did (`suspect`), all
        that are at a limit count."""
        labels, views, clamped = block_labels(self.store, self.segment, block), [], 0
        for row in range(len(self.segment.views)):
            rows = view_rows(self.segment, block, stored, row, labels[row]).take(inside)
            arrays, now, at_limit = self.recoding.view(rows)
            views.append(arrays)
            clamped += int((now | at_limit if suspect else now).sum())
        return {name: np.concatenate([each[name] for each in views]) for name in views[0]}, clamped

    def _of_first_block(self, stored: dict[str, Array]) -> dict[str, Array]:
        """Canary, and class means: made anew where the top k changes."""
        old, new = self.recoding.source.encoding, self.recoding.target.encoding
        found = {"canary": stored["canary"]}
        if new.class_means and old.k == new.k:
            found["class_means"] = stored["class_means"]
        elif new.class_means:
            means = ClassMeans(self.recoding, stored["class_means"][0] if old.class_means else None)
            labels = block_labels(self.store, self.segment, 0)
            for row in range(len(self.segment.views)):
                means.add(view_rows(self.segment, 0, stored, row, labels[row]))
            found["class_means"] = means.values()
        return found

    def _count(self, counts: Counts, clamped: int) -> None:
        self.counts = Counts(
            clamped=self.counts.clamped + clamped,
            labelled=self.counts.labelled + counts.labelled,
            correct=self.counts.correct + counts.correct,
        )


def _seen(part: dict[str, Array]) -> Counts:
    """Labelled and correct rows of a part of a source's block, whose own counts are of all of it."""
    label = part["label"].reshape(*part["label"].shape[:2], -1)
    return Counts(labelled=int((label != NO_LABEL).any(axis=-1).sum()), correct=int((label == 0).any(axis=-1).sum()))
