"""Stage one asks the teacher about V views of a data set, block by block, and writes its answers to a store."""

import time
from collections.abc import Callable
from dataclasses import replace

from kdcache.base.engine_settings import wants_dask
from kdcache.base.launch import launched
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.networks.out_of_memory import naming_memory
from kdcache.pipelines.extract.block_report import extracting_text
from kdcache.pipelines.extract.block_runner import BlockRunner, least_accuracy
from kdcache.pipelines.extract.dask_cluster import open_work
from kdcache.pipelines.extract.earlier_answers import require_same_answers
from kdcache.pipelines.extract.earlier_store import blocks_done, drift_since, open_earlier
from kdcache.pipelines.extract.filled_caches import filled_caches, filled_notes
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.local_blocks import on_own_device
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.own_views import with_own_views
from kdcache.pipelines.extract.passes import spans_to_extract
from kdcache.pipelines.extract.report import ExtractSummary, Report, all_whole
from kdcache.pipelines.extract.sizes import Sizes, sizes
from kdcache.pipelines.extract.smaller_batches import BEFORE_BLOCKS, capped_notes
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.lineage import with_lineage
from kdcache.store.lineage_text import unsealed_notes
from kdcache.store.store import Store
from kdcache.training.saved_networks import spelled_out
from kdcache.views.own_place import require_own_place


def extract(
    settings: ExtractSettings,
    *,
    progress: Progress = silent,
    stop: StopRequest | None = None,
    announce: Callable[[Sizes], None] | None = None,
) -> ExtractSummary:
    """An extraction writes the teacher's answers to some views into a store, or finishes one that began earlier; the
    same settings resume.

    A number of views takes as many passes as the store has unfinished segments and gaps; the summary is the last one's.

    Args:
        settings: A field for each option of `kdcache extract`.
        progress: A callable that hears of the work that is done.
        stop: A request to stop, which may be made meanwhile.
        announce: A callable that hears the sizes before the first block.

    Raises MismatchError for a store of another identity, InvalidInputError for a transform that does not replay,
    TeacherSuspectError, BadLogitsError, and InterruptedRunError once `stop` is requested; committed blocks stay.

    Examples:
        >>> from kdcache.pipelines.settings import ExtractSettings
        >>> settings = ExtractSettings(
        ...     store="new.kd", data="digits", data_set={"limit": 100}, transform="none",
        ...     teacher="kdcache.networks:convnet", teacher_set={"width": 8},
        ...     weights="teacher.safetensors", workers=0,
        ... )
        >>> extract(settings).rows
        100
    """
    *first_spans, last_span = spans_to_extract(settings)
    settings, stop, notes = spelled_out(settings), stop or StopRequest(), list[str]()
    for span in first_spans:
        earlier = extract_pass(settings.model_copy(update={"views": span}), progress, stop, announce)
        notes.append(f"this call also extracted views {span}: {earlier.rows:,} rows; all else is of {last_span} alone")
        notes += [f"views {span}: {note}" for note in earlier.notes]
    if "views" in settings.model_fields_set and settings.views.is_count and settings.views.stop < last_span.stop:
        notes.append(f"--views {settings.views.stop}: the store has views {last_span} already")
    summary = extract_pass(settings.model_copy(update={"views": last_span}), progress, stop, announce)
    return summary.model_copy(update={"notes": tuple(dict.fromkeys((*summary.notes, *notes)))})


def extract_pass(
    settings: ExtractSettings, progress: Progress, stop: StopRequest, announce: Callable[[Sizes], None] | None
) -> ExtractSummary:
    """Extract the views of one segment."""
    start_time, launch = time.monotonic(), launched()
    settings, view_notes = with_own_views(settings)
    require_own_place(settings.store, settings.data, settings.data_set)
    settings = on_own_device(settings, launch)
    with (
        naming_memory(*BEFORE_BLOCKS),
        FreshDraws(settings, serves=wants_dask(settings) and not settings.scheduler) as fresh,
        open_work(settings, launch, progress, stop, fresh.address) as work,
    ):
        # Data set, teacher and the store that stands.
        progress(f"opening {settings.data}, building the teacher {settings.teacher}", 0, 0)
        job = open_job(settings, progress)
        earlier = open_earlier(settings, job, progress)

        # Checks, before anything is written.
        fresh.begin(job)
        progress("checking that views replay", 0, 0)
        checked = job.check(settings.min_accuracy, progress)
        job = replace(job, forward=checked.forward)
        if earlier is not None:
            require_same_answers(earlier, job)
        fresh.require_begin()
        work.require_fit(job)

        # The store and the segment; what stands in it.
        provenance = with_lineage(job.provenance, job.lineage)
        store = Store.create(
            settings.store, job.identity, order=job.order, labels=job.labels, provenance=provenance, head=job.head
        )
        segment = store.add_segment(job.views)
        earlier_blocks = blocks_done(earlier, job.views)
        capped = capped_notes(segment.layout, job.batch_rows)
        notes = (
            *view_notes,
            *checked.notes,
            *drift_since(store, job),
            *unsealed_notes(job.lineage),
            *fresh.notes,
            *capped,
        )

        # Blocks.
        work.begin(job, segment, fresh)
        if announce is not None:
            announce(sizes(job.identity, segment.layout, work.memory_bound))
        limit = least_accuracy(job, settings)
        runner = BlockRunner(work, job, segment, least_accuracy=limit, progress=progress, stop=stop)
        blocks = [block for block in range(segment.layout.blocks) if block not in earlier_blocks]
        if blocks:
            progress(extracting_text(segment, blocks), 0, 0)
        runner.run(blocks)
        if foreign_blocks := runner.measures.foreign_blocks:  # see them committed, or finish them for their writer
            runner.run(segment.uncommitted(foreign_blocks), adopt=True)
        measures = runner.finish()
        notes += filled_notes(filled_caches(job.data, job.identity, settings), job.views, job.view_bytes)

    # Seal and summary, from one listing.
    ended = Store.open_for_writing(settings.store).snapshot()  # others may have added views meanwhile
    must_seal = settings.seal and launch.rank == 0 and all_whole(ended)
    content_id = ended.seal().content_id if must_seal else None
    report = Report(
        path=settings.store,
        store=ended,
        segment=ended.segment_of(job.views.start),
        start_time=start_time,
        accuracy=checked.accuracy,
        blocks_done_before=len(earlier_blocks),
        notes=notes,
        sample_name=job.sample_name,
    )
    return report.summary(measures, content_id)
