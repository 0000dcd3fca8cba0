"""The cache of views that an extraction fills for the trainings to come."""

from kdcache.base.cache_options import CacheOptions
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.settings import ExtractSettings
from kdcache.views.cache_keys import open_caches
from kdcache.views.pixel_caches import PixelCaches, room_notes


def filled_caches(job: Job, settings: ExtractSettings) -> PixelCaches:
    """The cache that the settings name, by the key that a training on the store will have."""
    options = CacheOptions(views=settings.fill_view_cache, gigabytes=settings.view_cache_gb)
    plan, kinds = job.identity.plan, job.identity.encoding.kinds_of_contents
    return open_caches(options, job.data, plan, kinds, checked=True)


def filled_notes(job: Job, settings: ExtractSettings) -> tuple[str, ...]:
    """Why the cache does not hold all of the views."""
    caches = filled_caches(job, settings)
    if caches.views is None:
        return caches.notes
    views = list(job.views)
    held, total = caches.views.held(views)
    unfilled = (
        f"{settings.fill_view_cache} holds {held:,} of {total:,} files of these views: what stood in the store was not "
        "drawn again, and only views of 8 bits are kept"
    )
    size = caches.views.file_bytes(job.view_bytes)
    return tuple(room_notes(caches.views, views, size)) or (unfilled,) * (held < total)
