"""The caches that views are drawn with."""

from dataclasses import dataclass, replace

from kdcache.views.decoded_cache import DecodedCache
from kdcache.views.view_cache import ViewCache


@dataclass(frozen=True)
class PixelCaches:
    """The caches that views are drawn with; `notes` say why one that was asked for is not there."""

    views: ViewCache | None = None
    decoded: DecodedCache | None = None
    notes: tuple[str, ...] = ()

    def unread(self) -> "PixelCaches":
        """The same caches, of which nothing is served: what is drawn is kept in place of what is there."""
        views, decoded = self.views, self.decoded
        return replace(self, views=views and views.unread(), decoded=decoded and decoded.unread())


NO_CACHES = PixelCaches()
