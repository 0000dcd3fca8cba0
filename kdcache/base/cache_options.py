"""Where pixels are cached, and how much room they may take."""

from dataclasses import dataclass

DEFAULT_GB = 20.0


@dataclass(frozen=True)
class CacheOptions:
    """Cache options name the folders that keep drawn views and decoded samples, and the room that each may take.

    Attributes:
        views: The folder of drawn views; empty for none.
        decoded: The folder of decoded samples; empty for none.
        gigabytes: The room of each folder, in GB of 10^9 bytes.

    Examples:
        >>> CacheOptions(decoded="/tmp/decoded", gigabytes=5.0).are_named
        True
    """

    views: str = ""
    decoded: str = ""
    gigabytes: float = DEFAULT_GB

    @property
    def are_named(self) -> bool:
        """True where a folder is named."""
        return bool(self.views or self.decoded)


UNCACHED = CacheOptions()
