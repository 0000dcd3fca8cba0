"""Stage one asks the teacher about V views of a data set, block by block, and writes its answers to a store."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kdcache.base.launch import launched
from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record, require_equal
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, ReplayError, StoreNotFoundError
from kdcache.pipelines.extract.block_loop import BlockLoop, extract_blocks
from kdcache.pipelines.extract.dask_cluster import cluster_for, workers_on
from kdcache.pipelines.extract.job import Job, open_job
from kdcache.pipelines.extract.torchrun import await_others, on_own_device, own_blocks
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.commits import Commit, totals
from kdcache.store.layout import MANIFEST
from kdcache.store.lineage import unsealed_notes, with_lineage
from kdcache.store.plan import ViewPlan
from kdcache.store.store import Store
from kdcache.views.replay import grade_replay, require_decoder

CLAMPED_SHARE = 0.001  # of rows, above which the user should know


class ExtractSummary(Record):
    """The summary that `kdcache extract` prints at its end. Rows are (position, view) pairs; accuracies are top-1.

    `seconds` are those of the block loop, `checks_seconds` those of all before it. In the `waited_for_` seconds the
    teacher idled; on Dask they are summed over the workers. Memory is in bytes: the peak of this process, the bound
    that was computed beforehand (not on Dask), and the peak of the largest worker.
    """

    store: str
    content_id: str | None
    views: ViewSpan
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
    start_time, stop, launch = time.monotonic(), stop or StopRequest(), launched()
    settings = on_own_device(settings, launch)
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_for(settings, progress, stop))
        job = open_job(settings)
        _require_same_store(settings.store, job)
        view_bytes, accuracy = job.check(settings.min_accuracy)
        workers = stack.enter_context(workers_on(cluster, settings, job, view_bytes))
        provenance = with_lineage(job.provenance, job.lineage)
        store = Store.create(
            settings.store, job.identity, order=job.order, labels=job.labels, provenance=provenance, head=job.head
        )
        segment = store.add_segment(job.views)
        if workers is not None:
            workers.require_shared()
        extractor = job.extractor(segment.layout, job.identity, view_bytes)
        earlier_blocks = set(segment.commits())
        drift_notes = _drift_since(store, job)
        loop = BlockLoop(start_time=time.monotonic(), base_memory=peak_rss_bytes())

        def run(blocks: list[int], *, adopt: bool = False) -> None:
            if workers is not None:
                workers.extract(segment, blocks, loop, progress=progress, stop=stop, adopt=adopt)
            else:
                extract_blocks(
                    extractor, segment, job, blocks, settings, loop, progress=progress, stop=stop, adopt=adopt
                )

        missing_blocks = [block for block in range(segment.layout.blocks) if block not in earlier_blocks]
        blocks = own_blocks(missing_blocks, launch)
        run(blocks)
        if loop.foreign_blocks:  # another writer took these blocks: see them committed, or finish them for it
            run([block for block in loop.foreign_blocks if block not in segment.commits()], adopt=True)
        if launch.world_size > 1 and launch.rank == 0:
            seconds = (time.monotonic() - loop.start_time) / max(len(blocks), 1)
            while rest := await_others(segment, seconds_a_block=seconds, progress=progress, stop=stop):
                run(rest, adopt=True)
        if workers is not None:
            workers.require_whole(segment)
    measures: dict[str, Any] = {
        "seconds": time.monotonic() - loop.start_time,
        "checks_seconds": loop.start_time - start_time,
        "waited_for_writer": loop.waited_for_writer,
        "waited_for_views": loop.waited_for_views,
        "memory_peak": peak_rss_bytes(),
        "memory_bound": None if loop.base_memory is None or workers else loop.base_memory + extractor.memory.total,
        "memory_peak_worker": loop.peak_worker or (peak_rss_bytes(children=True) if settings.workers else None),
    }
    commits = segment.commits()
    must_seal = settings.seal and launch.rank == 0 and _all_whole(store)
    content_id = store.seal().content_id if must_seal else None
    summary = _summary(settings, job, store, commits, len(earlier_blocks), accuracy, measures, content_id)
    notes = (*summary.notes, *loop.notes, *drift_notes, *unsealed_notes(job.lineage))
    return summary.model_copy(update={"notes": notes})


def _require_same_store(path: str, job: Job) -> None:
    """Refuse a store of another identity, and a folder of other files, before any work is done."""
    try:
        store = Store.open_for_writing(path)
    except StoreNotFoundError:
        folder = Path(path)
        names = sorted({entry.name for entry in folder.iterdir()} - {"kdcache"}) if folder.is_dir() else []
        if names and not (folder / MANIFEST).exists():  # another process may have made the store just now
            raise InvalidInputError(
                f"{path} holds other files ({names[0]}); choose another place for the store"
            ) from None
        return
    advice = "use another store path, or the settings that the store was made with (kdcache inspect shows them)"
    require_equal(store.identity, job.identity, f"{path} belongs to another extraction:", advice)
    require_decoder(store.manifest.provenance, job.data.decoder, store=path)


def _drift_since(store: Store, job: Job) -> tuple[str, ...]:
    """Views are drawn again and compared with the store's first block 0. Drift gives a note; other pictures raise
    ReplayError."""
    first_views = [segment.views.start for segment in store.segments if 0 in segment.commits()]
    if not first_views:
        return ()
    view = first_views[0]
    replay = grade_replay(store, job.dataset, view)
    if replay.grade == "another picture":
        raise ReplayError(
            f"view {view} is not drawn as it was when block 0 was written: {replay.levels:.1f} of 255 levels off; "
            "a sample's file has changed, or a transform of your own: restore it, or use another store path"
        )
    versions = ", ".join(replay.versions) or "none"
    return (
        (f"views drift by up to {replay.levels:.1f} of 255 levels since block 0 was written (versions: {versions})",)
        if replay.grade == "drift"
        else ()
    )


def _all_whole(store: Store) -> bool:
    return all(len(segment.commits()) == segment.layout.blocks for segment in store.segments)


def _summary(
    settings: ExtractSettings,
    job: Job,
    store: Store,
    commits: Mapping[int, Commit],
    earlier_count: int,
    accuracy: float | None,
    measures: dict[str, Any],
    content_id: str | None,
) -> ExtractSummary:
    counts = totals(commits)
    new_rows = counts["rows"] * (len(commits) - earlier_count) / max(len(commits), 1)
    return ExtractSummary(
        store=settings.store,
        content_id=content_id,
        views=job.views,
        rows=counts["rows"],
        blocks=len(commits),
        blocks_done_before=earlier_count,
        bytes=counts["bytes"],
        bytes_a_row=counts["bytes"] / max(counts["rows"], 1),
        rows_a_second=new_rows / max(measures["seconds"], 1e-9),
        **measures,
        accuracy_clean=accuracy,
        accuracy_views=counts["correct"] / counts["labelled"] if counts["labelled"] else None,
        clamped_rows=counts["clamped"],
        mixed_blocks=counts["mixed_blocks"],
        notes=tuple(_notes(counts, store, job.identity.plan)),
    )


def _notes(counts: dict[str, int], store: Store, plan: ViewPlan) -> Iterator[str]:
    if counts["clamped"] > CLAMPED_SHARE * counts["rows"]:
        yield f"{counts['clamped']} rows have a logit gap too wide for their integers: consider --quantisation high"
    if counts["mixed_blocks"]:
        yield f"{counts['mixed_blocks']} blocks hold shards of two writers whose logits differ slightly"
    if not counts["labelled"]:
        yield "no row is labelled: the teacher could not be checked against hard labels"
    if not _all_whole(store):
        yield "other segments are not whole yet: the store was not sealed"
    if plan.transform.text:
        yield f"students need --transform {plan.transform.name} with the same settings to replay the views"
