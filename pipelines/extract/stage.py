"""Stage one asks the teacher about V views of a data set, block by block, and writes its answers to a store."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdcache.base.launch import launched
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import differences, require_equal
from kdcache.errors import InvalidInputError, ReplayError, StoreNotFoundError
from kdcache.pipelines.extract.dask_cluster import open_engine
from kdcache.pipelines.extract.earlier_answers import require_same_answers
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job, open_job
from kdcache.pipelines.extract.kept import keep_words
from kdcache.pipelines.extract.report import ExtractSummary, Report, all_whole
from kdcache.pipelines.extract.sizes import Sizes, sizes
from kdcache.pipelines.extract.torchrun import await_others, on_own_device, own_blocks
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.layout import MANIFEST
from kdcache.store.lineage import with_lineage
from kdcache.store.lineage_text import unsealed_notes
from kdcache.store.store import Store
from kdcache.training.saved_networks import spelled_out
from kdcache.views.other_data import data_words, other_data_error
from kdcache.views.own_place import require_own_place
from kdcache.views.replay import grade_replay, require_decoder


def extract(
    settings: ExtractSettings,
    *,
    progress: Progress = silent,
    stop: StopRequest | None = None,
    announce: Callable[[Sizes], None] | None = None,
) -> ExtractSummary:
    """Extract views into a store, or finish what an earlier run began; the same settings resume. `announce` hears the
    sizes before the first block.

    Raises MismatchError for a store of another identity, InvalidInputError for a transform that does not replay,
    TeacherSuspectError, BadLogitsError, and InterruptedRunError once `stop` is requested; committed blocks stay.
    """
    settings = spelled_out(settings)
    require_own_place(settings.store, settings.data, settings.data_set)
    start_time, stop, launch = time.monotonic(), stop or StopRequest(), launched()
    settings = on_own_device(settings, launch)
    with FreshDraws(settings) as fresh, open_engine(settings, progress, stop) as engine:
        job = open_job(settings, progress)
        earlier = _require_same_store(settings, job, progress)
        fresh.begin(job)
        checked = job.check(settings.min_accuracy, progress)
        job = replace(job, forward=checked.forward)
        if earlier is not None:
            require_same_answers(earlier, job)
        fresh.require_begin()
        engine.require_fit(job)
        provenance = with_lineage(job.provenance, job.lineage)
        store = Store.create(
            settings.store, job.identity, order=job.order, labels=job.labels, provenance=provenance, head=job.head
        )
        segment = store.add_segment(job.views)
        earlier_blocks = set(segment.commits())
        report = Report(
            path=settings.store,
            store=store,
            segment=segment,
            start_time=start_time,
            accuracy=checked.accuracy,
            blocks_done_before=len(earlier_blocks),
            notes=(*checked.notes, *_drift_since(store, job), *unsealed_notes(job.lineage), *fresh.notes),
            sample_name=job.sample_name,
        )
        runner = engine.runner(job, segment, fresh)
        if announce is not None:
            announce(sizes(job.identity, segment.layout, runner.measures.memory_bound))
        missing_blocks = [block for block in range(segment.layout.blocks) if block not in earlier_blocks]
        blocks = own_blocks(missing_blocks, launch)
        runner.run(blocks)
        if foreign_blocks := runner.measures.foreign_blocks:  # see them committed, or finish them for their writer
            runner.run([block for block in foreign_blocks if block not in segment.commits()], adopt=True)
        if launch.world_size > 1 and launch.rank == 0:
            seconds = (time.monotonic() - runner.measures.start_time) / max(len(blocks), 1)
            while rest := await_others(segment, seconds_a_block=seconds, progress=progress, stop=stop):
                runner.run(rest, adopt=True)
        measures = runner.finish()
    must_seal = settings.seal and launch.rank == 0 and all_whole(store)
    content_id = store.seal().content_id if must_seal else None
    return report.summary(measures, content_id)


def _require_same_store(settings: ExtractSettings, job: Job, progress: Progress) -> Store | None:
    """The store that stands, None where there is none. Refuse one of another identity, and a folder of other files,
    before any work is done."""
    path = settings.store
    try:
        store = Store.open_for_writing(path)
    except StoreNotFoundError:
        folder = Path(path)
        names = sorted({entry.name for entry in folder.iterdir()} - {"kdcache"}) if folder.is_dir() else []
        if names and not (folder / MANIFEST).exists():  # another process may have made the store just now
            raise InvalidInputError(
                f"{path} holds other files ({names[0]}); choose another place for the store"
            ) from None
        return None
    headline = f"{path} belongs to another extraction:"
    advice = "use another store path, or the settings that the store was made with (kdcache inspect shows them)"
    problems = differences(store.identity, job.identity)
    if any(field.startswith("dataset.") for field, _, _ in problems):
        words = data_words(settings.data, settings.data_set)
        raise other_data_error(store, job.data, problems, headline, advice=advice, words=words, progress=progress)
    if any(field in ("encoding.features", "encoding.head", "encoding.taps") for field, _, _ in problems):
        advice += f"; it was made with --keep {words}" if (words := keep_words(store.identity.encoding)) else ""
    require_equal(store.identity, job.identity, headline, advice)
    require_decoder(store.manifest.provenance, job.data.decoder, store=path)
    return store


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
