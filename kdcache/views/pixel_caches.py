"""The caches that views are drawn with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kdcache.views.decoded_cache import DecodedCache
from kdcache.views.view_cache import ViewCache


@dataclass(frozen=True)
class PixelCaches:
    """The caches that views are drawn with; `notes` say why one that was asked for is not there."""

    views: ViewCache | None = None
    decoded: DecodedCache | None = None
    notes: tuple[str, ...] = ()

    @property
    def serve(self) -> bool:
        """True where a view or a decoded sample may come from a cache."""
        return any(cache is not None and cache.serves for cache in (self.views, self.decoded))

    def keeping(self) -> "PixelCaches":
        """The same caches, of which nothing is served: what is drawn is kept in place of what is there."""
        views, decoded = self.views, self.decoded
        return replace(self, views=views and views.keeping(), decoded=decoded and decoded.keeping())


NO_CACHES = PixelCaches()


def room_notes(cache: ViewCache | DecodedCache, views: Sequence[int], size: int) -> Iterator[str]:
    """A note where a cache lacks files of these views and has no room for one of `size` bytes."""
    folder, (held, total) = cache.folder, cache.held(views)
    if folder.problem:
        yield f"{folder.problem}: not all was cached"
    elif held < total and folder.room() < size:
        yield (
            f"{folder.root} holds {held:,} of {total:,} files of {folder.kind}, and has room for "
            f"{folder.room() / 1e6:,.1f} MB of its {folder.limit / 1e9:g} GB: the others are drawn each time; raise "
            "--view-cache-gb"
        )
