"""Where pixels are cached, and how much room they may take."""

from dataclasses import dataclass

DEFAULT_GB = 20.0


@dataclass(frozen=True)
class CacheOptions:
    """Folders of the cache of views and of that of decoded samples, empty for none, and the GB that each may take."""

    views: str = ""
    decoded: str = ""
    gigabytes: float = DEFAULT_GB

    @property
    def are_named(self) -> bool:
        """True where a folder is named."""
        return bool(self.views or self.decoded)


UNCACHED = CacheOptions()
