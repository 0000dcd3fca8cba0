"""Stage one: the teacher over V views of a data set, block by block, into a store."""

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
from kdcache.pipelines.extract.dask_fleet import fleet_of
from kdcache.pipelines.extract.dask_fleet import opened as open_workers
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
    """What `kdcache extract` says at its end. Rows are (position, view) pairs; accuracies are top-1; seconds are of the
    block loop, `checks_seconds` of all before it; the teacher idled while it waited for the writer or for views, on
    Dask in seconds summed over its workers.
    Memory in bytes: of this process at most, the bound stated beforehand (not on Dask), of the largest worker."""

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
    opened, stop, launch = time.monotonic(), stop or StopRequest(), launched()
    settings = on_own_device(settings, launch)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_workers(settings, progress, stop))
        job = open_job(settings)
        _require_same_store(settings.store, job)
        view_bytes, accuracy = job.check(settings.min_accuracy)
        fleet = stack.enter_context(fleet_of(cluster, settings, job, view_bytes))
        provenance = with_lineage(job.provenance, job.lineage)
        store = Store.create(
            settings.store, job.identity, order=job.order, labels=job.labels, provenance=provenance, head=job.head
        )
        segment = store.add_segment(job.views)
        if fleet is not None:
            fleet.require_shared()
        extractor = job.extractor(segment.layout, job.identity, view_bytes)
        before = set(segment.commits())
        drift = _drift_since(store, job)
        loop = BlockLoop(began=time.monotonic(), base=peak_rss_bytes())

        def run(blocks: list[int], *, adopt: bool = False) -> None:
            if fleet is not None:
                fleet.extract(segment, blocks, loop, progress=progress, stop=stop, adopt=adopt)
            else:
                extract_blocks(
                    extractor, segment, job, blocks, settings, loop, progress=progress, stop=stop, adopt=adopt
                )

        own = own_blocks([block for block in range(segment.layout.blocks) if block not in before], launch)
        run(own)
        if loop.left:  # another writer took these blocks: see them committed, or finish them for it
            run([block for block in loop.left if block not in segment.commits()], adopt=True)
        if launch.world_size > 1 and launch.rank == 0:
            pace = (time.monotonic() - loop.began) / max(len(own), 1)
            while left := await_others(segment, seconds_a_block=pace, progress=progress, stop=stop):
                run(left, adopt=True)
        if fleet is not None:
            fleet.require_whole(segment)
    measured: dict[str, Any] = {
        "seconds": time.monotonic() - loop.began,
        "checks_seconds": loop.began - opened,
        "waited_for_writer": loop.waited_for_writer,
        "waited_for_views": loop.waited_for_views,
        "memory_peak": peak_rss_bytes(),
        "memory_bound": None if loop.base is None or fleet else loop.base + extractor.memory.total,
        "memory_peak_worker": loop.peak_worker or (peak_rss_bytes(children=True) if settings.workers else None),
    }
    commits = segment.commits()
    sealing = settings.seal and launch.rank == 0 and _all_whole(store)
    content_id = store.seal().content_id if sealing else None
    summary = _summary(settings, job, store, commits, len(before), accuracy, measured, content_id)
    notes = (*summary.notes, *loop.notes, *drift, *unsealed_notes(job.lineage))
    return summary.model_copy(update={"notes": notes})


def _require_same_store(path: str, job: Job) -> None:
    """Refuse another identity before any work is done."""
    try:
        standing = Store.open_for_writing(path)
    except StoreNotFoundError:
        folder = Path(path)
        others = sorted({each.name for each in folder.iterdir()} - {"kdcache"}) if folder.is_dir() else []
        if others and not (folder / MANIFEST).exists():  # another process may have made the store just now
            raise InvalidInputError(
                f"{path} holds other files ({others[0]}); choose another place for the store"
            ) from None
        return
    advice = "use another store path, or the settings that the store was made with (kdcache inspect shows them)"
    require_equal(standing.identity, job.identity, f"{path} belongs to another extraction:", advice)
    require_decoder(standing.manifest.provenance, job.data.decoder, store=path)


def _drift_since(store: Store, job: Job) -> tuple[str, ...]:
    """Do views look as they did when the store's first block 0 was written? Refuses other pictures, reports drift."""
    written = [segment.views.start for segment in store.segments if 0 in segment.commits()]
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
        views=job.views,
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
        notes=tuple(_notes(counted, store, job.identity.plan)),
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
