"""The loader's options: those of reading soft labels, and those of feeding images."""

from dataclasses import dataclass

from kdcache.base.arrays import IntArray
from kdcache.base.cache_options import UNCACHED, CacheOptions
from kdcache.base.tap_names import FEATURES
from kdcache.base.worker_start import DEFAULT_START, WorkerStart
from kdcache.store.plan import ViewPlan
from kdcache.views.transforms import Transform

DEFAULT_MEMORY = 4_000_000_000  # bytes of soft labels in memory, the view in use and the next one


@dataclass(frozen=True)
class LabelOptions:
    """How soft labels are read and compared.

    top_k: the number of classes that soft labels keep, all of the store's by default. class_means: hand on the stores'
    class means, which tail "class-mean" needs. features: hand on the stores' features. taps: the names of the taps that
    are handed on, of each store, `features` among them where an objective asks for them; none by default. negatives:
    the number of rows that are drawn with each batch for objectives that contrast, with the stores' features.
    by_class: of teachers with subclasses hand on the classes. accept_drift: go on where the canary shows that pixels
    are a few levels off. memory_bytes: a view's soft labels and taps up to this size are in memory whole; above it
    blocks are shuffled.
    """

    top_k: int | None = None
    class_means: bool = False
    features: bool = False
    taps: tuple[tuple[str, ...], ...] = ()
    negatives: int = 0
    by_class: bool = False
    accept_drift: bool = False
    memory_bytes: int = DEFAULT_MEMORY

    def outputs_of(self, number: int) -> tuple[bool, tuple[str, ...]]:
        """True where features are read of a store by its number, and the names of its other taps that are read."""
        names = self.taps[number] if number < len(self.taps) else ()
        return self.features or FEATURES in names, tuple(name for name in names if name != FEATURES)


@dataclass(frozen=True)
class FeedOptions:
    """How images are drawn and where they go.

    workers: the number of processes that draw ahead; 0 draws each batch when it is asked for. mean, std: by channel, by
    default those of `default_normalisation` for u8 views; floats are normalised only where they are given. plan, order:
    of a loader without stores. transform: only where the plan's is a user's own. rank, world_size: this process draws
    and reads its share of each batch, see `share_sizes`. worker_start: how the processes begin. caches: of the
    pixels of views, and of decoded samples; none by default.
    """

    workers: int = 0
    device: str = "cpu"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    plan: ViewPlan | None = None
    transform: Transform | None = None
    order: IntArray | None = None
    rank: int = 0
    world_size: int = 1
    worker_start: WorkerStart = DEFAULT_START
    caches: CacheOptions = UNCACHED
