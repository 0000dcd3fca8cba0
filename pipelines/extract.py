"""Stage one: the teacher over V views of a data set, block by block, into a store."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcache.checks import twice_chance
from kdcache.commits import Commit, totals
from kdcache.errors import InvalidInputError, ReplayError, StoreNotFoundError, TeacherSuspectError
from kdcache.extraction import BlockAnswer, BlockExtractor
from kdcache.lineage import unsealed_notes, with_lineage
from kdcache.loop_memory import IN_FLIGHT
from kdcache.manifest import Record, require_equal
from kdcache.memory import peak_rss_bytes
from kdcache.pipelines.job import Job, open_job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.plan import ViewPlan
from kdcache.progress import Progress, StopRequest, silent
from kdcache.replay import grade_replay, require_decoder
from kdcache.segment import Segment
from kdcache.store import Store
from kdcache.views import Drawn, draw_requests

CLAMPED_SHARE = 0.001  # of rows, above which the user should know
SUSPECT_ROWS = 512
RESUME = "the blocks that were committed stay; run the same command again to go on"


class ExtractSummary(Record):
    """What `kdcache extract` says at its end. Rows are (position, view) pairs; accuracies are top-1; seconds are of the
    block loop, `checks_seconds` of all before it; the teacher idled while it waited for the writer or
    for views.
    Memory in bytes: of this process at most, the bound stated beforehand, of the largest worker."""

    store: str
    content_id: str | None
    views: tuple[int, int]
    rows: int
    blocks: int
    blocks_done_before: int
    bytes: int
    bytes_a_row: float
    seconds: float
    rows_a_second: float
    checks_seconds: float
    waited_for_writer: float
    waited_for_views: float
    memory_peak: int | None
    memory_bound: int | None
    memory_peak_worker: int | None
    accuracy_clean: float | None
    accuracy_views: float | None
    clamped_rows: int
    mixed_blocks: int
    notes: tuple[str, ...] = ()


def extract(
    settings: ExtractSettings, *, progress: Progress = silent, stop: StopRequest | None = None
) -> ExtractSummary:
    """Extract views into a store, or finish what an earlier run began; the same settings resume.

    Raises MismatchError for a store of another identity, InvalidInputError for a transform that does not replay,
    TeacherSuspectError, BadLogitsError, and InterruptedRunError once `stop` is requested; committed blocks stay.
    """
    opened = time.monotonic()
    job = open_job(settings)
    stop = stop or StopRequest()
    _require_same_store(settings.store, job)
    view_bytes, accuracy = job.check(settings.min_accuracy)
    provenance = with_lineage(job.provenance, job.lineage)
    store = Store.create(
        settings.store, job.identity, order=job.order, labels=job.labels, provenance=provenance, head=job.head
    )
    segment = store.add_segment(job.start, job.stop)
    extractor = job.extractor(segment.layout, job.identity, view_bytes)
    before = set(segment.commits())
    drift = _drift_since(store, job)
    pending = [block for block in range(segment.layout.blocks) if block not in before]
    loop = BlockLoop(began=time.monotonic(), base=peak_rss_bytes())
    extract_blocks(extractor, segment, job, pending, settings, loop, progress=progress, stop=stop)
    if loop.left:  # another writer took these blocks: see them committed, or finish them for it
        again = [block for block in loop.left if block not in segment.commits()]
        extract_blocks(extractor, segment, job, again, settings, loop, progress=progress, stop=stop, adopt=True)
    measured: dict[str, Any] = {
        "seconds": time.monotonic() - loop.began,
        "checks_seconds": loop.began - opened,
        "waited_for_writer": loop.waited_for_writer,
        "waited_for_views": loop.waited_for_views,
        "memory_peak": peak_rss_bytes(),
        "memory_bound": None if loop.base is None else loop.base + extractor.memory.total,
        "memory_peak_worker": peak_rss_bytes(children=True) if settings.workers else None,
    }
    commits = segment.commits()
    content_id = store.seal().content_id if settings.seal and _all_whole(store) else None
    summary = _summary(settings, job, store, commits, len(before), accuracy, measured, content_id)
    return summary.model_copy(update={"notes": (*summary.notes, *drift, *unsealed_notes(job.lineage))})


@dataclass
class BlockLoop:
    """What a loop over blocks notes: blocks that another writer holds, and seconds in which the teacher idled.
    `base` is this process's peak memory before it."""

    began: float = 0.0
    base: int | None = None
    left: list[int] = field(default_factory=list)
    waited_for_writer: float = 0.0
    waited_for_views: float = 0.0


def extract_blocks(
    extractor: BlockExtractor,
    segment: Segment,
    job: Job,
    blocks: list[int],
    settings: ExtractSettings,
    loop: BlockLoop,
    *,
    progress: Progress = silent,
    stop: StopRequest | None = None,
    adopt: bool = False,
    drawn: Iterator[Drawn] | None = None,
) -> None:
    """Extract and commit blocks; what is noted on the way goes into `loop`. `drawn`: their views, if at hand."""
    if drawn is None:
        requests = (request for block in blocks for request in extractor.requests(block))
        drawn = draw_requests(job.dataset, requests, settings.workers)
    drawn = _watched(drawn, segment, blocks, loop, progress, stop)
    writing: list[tuple[int, Future[Commit | None]]] = []
    seen: dict[int, Commit] = {}

    def write(answer: BlockAnswer) -> Commit | None:
        arrays, counts = extractor.encode(answer)
        return segment.commit(answer.block, arrays=arrays, counts=counts, provenance=job.provenance, adopt=adopt)

    def finish() -> None:
        block, future = writing.pop(0)
        commit = future.result()
        if commit is None:
            loop.left.append(block)
        else:
            seen[block] = commit

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-writer") as writer:
        for block in blocks:
            writing.append((block, writer.submit(write, extractor.ask(block, drawn))))
            while writing and writing[0][1].done():  # an error is told at once
                finish()
            if len(writing) > IN_FLIGHT:
                began = time.monotonic()
                finish()
                loop.waited_for_writer += time.monotonic() - began
            _require_sane(seen, job, settings.min_accuracy)
        while writing:  # the teacher is done: nobody waits any more
            finish()
        _require_sane(seen, job, settings.min_accuracy)


def _watched(
    drawn: Iterator[Drawn],
    segment: Segment,
    blocks: list[int],
    loop: BlockLoop,
    progress: Progress,
    stop: StopRequest | None,
) -> Iterator[Drawn]:
    """Count rows as they are drawn, and look for a request to stop."""
    layout = segment.layout
    total = sum(last - first for first, last in map(layout.block_rows, blocks)) * (layout.stop - layout.start)
    done = 0
    progress("extracting", done, total)
    began = time.monotonic()
    for item in drawn:
        loop.waited_for_views += time.monotonic() - began
        if stop is not None:
            stop.check(RESUME)
        done += item.images.shape[0] * item.images.shape[1]
        progress("extracting", done, total)
        yield item  # last: nobody asks for more after the last item
        began = time.monotonic()


def _require_same_store(path: str, job: Job) -> None:
    """Refuse another identity before any work is done."""
    try:
        standing = Store.open_for_writing(path)
    except StoreNotFoundError:
        folder = Path(path)
        if folder.is_dir() and (others := sorted({each.name for each in folder.iterdir()} - {"kdcache"})):
            raise InvalidInputError(
                f"{path} holds other files ({others[0]}); choose another place for the store"
            ) from None
        return
    advice = "use another store path, or the settings that the store was made with (kdcache inspect shows them)"
    require_equal(standing.identity, job.identity, f"{path} belongs to another extraction:", advice)
    require_decoder(standing.manifest.provenance, job.data.decoder, store=path)


def _drift_since(store: Store, job: Job) -> tuple[str, ...]:
    """Do views look as they did when the store's first block 0 was written? Refuses other pictures, reports drift."""
    written = [segment.layout.start for segment in store.segments if 0 in segment.commits()]
    if not written:
        return ()
    found = grade_replay(store, job.dataset, written[0])
    if found.grade == "another picture":
        raise ReplayError(
            f"view {written[0]} is not drawn as it was when block 0 was written: {found.levels:.1f} of 255 levels off; "
            "a sample's file has changed, or a transform of your own: restore it, or use another store path"
        )
    versions = ", ".join(found.versions) or "none"
    return (
        (f"views drift by up to {found.levels:.1f} of 255 levels since block 0 was written (versions: {versions})",)
        if found.grade == "drift"
        else ()
    )


def _require_sane(commits: Mapping[int, Commit], job: Job, min_accuracy: float | None) -> None:
    """Stop a pass whose teacher is near chance on the views themselves; a lower `min_accuracy` lowers the limit."""
    counted = totals(commits)
    limit = twice_chance(job.identity.teacher.classes)
    limit = limit if min_accuracy is None else min(limit, min_accuracy)
    if counted["labelled"] >= SUSPECT_ROWS and counted["correct"] < limit * counted["labelled"]:
        share = counted["correct"] / counted["labelled"]
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy over {counted['labelled']} views is {share:.3f}, below {limit:.3f}, though "
            "it passed on clean rows: the augmentation may destroy the images; draw a few and look at them"
        )


def _all_whole(store: Store) -> bool:
    return all(len(segment.commits()) == segment.layout.blocks for segment in store.segments)


def _summary(
    settings: ExtractSettings,
    job: Job,
    store: Store,
    commits: Mapping[int, Commit],
    before: int,
    accuracy: float | None,
    measured: dict[str, Any],
    content_id: str | None,
) -> ExtractSummary:
    counted = totals(commits)
    fresh = counted["rows"] * (len(commits) - before) / max(len(commits), 1)
    return ExtractSummary(
        store=settings.store,
        content_id=content_id,
        views=(job.start, job.stop),
        rows=counted["rows"],
        blocks=len(commits),
        blocks_done_before=before,
        bytes=counted["bytes"],
        bytes_a_row=counted["bytes"] / max(counted["rows"], 1),
        rows_a_second=fresh / max(measured["seconds"], 1e-9),
        **measured,
        accuracy_clean=accuracy,
        accuracy_views=counted["correct"] / counted["labelled"] if counted["labelled"] else None,
        clamped_rows=counted["clamped"],
        mixed_blocks=counted["mixed_blocks"],
        notes=tuple(_notes(counted, store, job.identity.views)),
    )


def _notes(counted: dict[str, int], store: Store, plan: ViewPlan) -> Iterator[str]:
    if counted["clamped"] > CLAMPED_SHARE * counted["rows"]:
        yield f"{counted['clamped']} rows have a logit gap too wide for their integers: consider --quantisation high"
    if counted["mixed_blocks"]:
        yield f"{counted['mixed_blocks']} blocks hold shards of two writers whose logits differ slightly"
    if not counted["labelled"]:
        yield "no row is labelled: the teacher could not be checked against hard labels"
    if not _all_whole(store):
        yield "other segments are not whole yet: the store was not sealed"
    if plan.transform.text:
        yield f"students need --transform {plan.transform.name} with the same settings to replay the views"
