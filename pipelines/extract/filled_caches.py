"""The cache of views that an extraction fills for the trainings to come."""

from kdcache.base.cache_options import CacheOptions
from kdcache.base.view_span import ViewSpan
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import Identity
from kdcache.views.cache_keys import open_caches
from kdcache.views.data import Data
from kdcache.views.pixel_caches import PixelCaches, room_notes


def filled_caches(data: Data, identity: Identity, settings: ExtractSettings) -> PixelCaches:
    """The cache that the settings name, by the key that a training on the store will have."""
    options = CacheOptions(views=settings.fill_view_cache, gigabytes=settings.view_cache_gb)
    return open_caches(options, data, identity.plan, identity.encoding.kinds_of_contents, checked=True)


def filled_notes(caches: PixelCaches, views: ViewSpan, view_bytes: int) -> tuple[str, ...]:
    """Why the cache does not hold all of these views, of so many bytes each."""
    if caches.views is None:
        return caches.notes
    held, total = caches.views.held(list(views))
    unfilled = (
        f"{caches.views.folder.root} holds {held:,} of {total:,} files of these views: what stood in the store was not "
        "drawn again, and only views of 8 bits are kept"
    )
    size = caches.views.file_bytes(view_bytes)
    return tuple(room_notes(caches.views, list(views), size)) or (unfilled,) * (held < total)
