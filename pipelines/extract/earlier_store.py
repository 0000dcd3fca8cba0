"""The store that stands already must be this extraction's, and its views must still be drawn as they were."""

import numpy as np

from kdcache.base.progress import Progress
from kdcache.base.records import differences, require_equal
from kdcache.base.view_span import ViewSpan
from kdcache.errors import ReplayError, StoreNotFoundError
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.kept import keep_words
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.own_folder import require_no_other_files
from kdcache.store.plan import GROUP
from kdcache.store.store import Store
from kdcache.views.other_data import data_words, other_data_error
from kdcache.views.replay import grade_replay, require_decoder
from kdcache.views.texts import rows_of_texts
from kdcache.views.view_stack import ViewRequest


def open_earlier(settings: ExtractSettings, job: Job, progress: Progress) -> Store | None:
    """The store that stands as one listing shows it, None where there is none. Refuse one of another identity, and a
    folder of other files, before any work is done."""
    path = settings.store
    try:
        store = Store.open_for_writing(path)
    except StoreNotFoundError:
        require_no_other_files(path)
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
    return store.snapshot()


def blocks_done(earlier: Store | None, views: ViewSpan) -> set[int]:
    """The blocks of a pass over some views that are committed in the store that stands."""
    segments = () if earlier is None else earlier.segments
    return {block for segment in segments if segment.views == views for block in segment.commits()}


def _require_same_texts(store: Store, job: Job, view: int) -> None:
    """Raises ReplayError where the first texts of block 0 are not those that the store has."""
    texts = np.arange(max(1, GROUP // job.data.sequence))
    drawn = job.dataset[ViewRequest(ViewSpan.of(view), texts)]
    rows = rows_of_texts(texts, job.data.sequence)
    if len(wrong := np.flatnonzero(store.load(view, rows).arrays["pixels"] != drawn.pixels[0])):
        raise ReplayError(
            f"{job.sample_name(int(rows[wrong[0]]))} is not the token that was read when block 0 was written: restore "
            "the texts, or use another store path"
        )


def drift_since(store: Store, job: Job) -> tuple[str, ...]:
    """Views are drawn again and compared with the store's first block 0. Drift gives a note; other pictures raise
    ReplayError."""
    store = store.snapshot((0,))
    first_views = [segment.views.start for segment in store.segments if 0 in segment.commits()]
    if not first_views:
        return ()
    view = first_views[0]
    if job.data.sequence > 1:
        _require_same_texts(store, job, view)
        return ()
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
